"""`hindgrad predict`."""
