"""Virtual users: a compiled script, the requests that it makes, and what it reads from their answers."""
