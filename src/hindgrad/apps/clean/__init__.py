"""`hindgrad clean`."""
