"""Makes load and measures it: gevent sockets by name, no monkey patching. Runs Artillery scripts and ApacheBench workloads."""
