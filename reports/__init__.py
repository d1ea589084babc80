"""Saved reports: model, readers, writers, comparison. Imports no other folder of this project and needs no gevent."""
