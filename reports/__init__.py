"""The saved document: model, readers, writers, comparison. Imports no other room of ours and needs no gevent."""
