"""Generates load and measures the answers. Runs Artillery scripts and ApacheBench workloads.

It uses gevent's own sockets by name, and patches nothing."""
