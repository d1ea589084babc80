"""Results as an HTML page, with charts as SVG."""
