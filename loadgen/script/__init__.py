"""Artillery scripts: their text is read and checked, and becomes a frozen value."""
