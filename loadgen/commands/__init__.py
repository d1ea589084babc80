"""The commands, one file each: turn flags into objects, make one call, and turn its result into an exit code."""
