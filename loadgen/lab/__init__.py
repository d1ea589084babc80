"""Repeats the experiments of two publications, the sources A and B (`findings.PUBLICATIONS`), and judges their claims.

The only part of the load generator that knows the service: it starts the service's database and servers, and selects its
strategies by name.
"""
