"""`hindgrad tune`."""
