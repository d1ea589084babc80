"""Runs the experiments of the two source documents again, on this machine, and says what came back. The only part of the
load generator that knows the service: it starts its database and its servers, and speaks of its strategies by name."""
