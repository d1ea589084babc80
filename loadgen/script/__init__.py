"""Artillery scripts: read, checked, and the languages inside them (templates, expressions, captures, checks)."""
