"""The commands, one file each: flags become objects, one call is made, and its outcome becomes an exit code."""
