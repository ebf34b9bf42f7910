"""Experiments from papers: `python -m experiments NAME`."""
