"""HTTP/1.1 as a client speaks it: requests as bytes, connections, answers, and the instants that are measured."""
