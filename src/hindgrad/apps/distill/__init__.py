"""`hindgrad distill`."""
