"""Ways to watch a run while it lasts: the console, the progress line, the live page, Prometheus."""
