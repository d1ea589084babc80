"""What can be seen of a run while it lasts: the console, the progress line, the live page, Prometheus."""
