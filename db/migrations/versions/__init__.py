"""One module per change, each naming the one before."""
