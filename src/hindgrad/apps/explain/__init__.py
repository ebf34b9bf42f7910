"""`hindgrad explain`."""
