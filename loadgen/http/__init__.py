"""HTTP/1.1 from the client's side: requests as bytes, connections, answers, and the instants that are measured."""
