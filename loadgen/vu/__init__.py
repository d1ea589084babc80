"""What one virtual user does: a compiled script, its requests, and what is read from their answers."""
