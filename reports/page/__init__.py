"""Reports as a page: blocks to HTML, and charts as SVG."""
