"""Hypergradients of runs of any length, segment by segment."""
