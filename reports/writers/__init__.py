"""Results written out: blocks as text for a terminal, as Markdown and as JSON, and which format a command writes."""
