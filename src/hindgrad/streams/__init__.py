"""Batches from data that is not in memory: data sets by rows, and loaders."""
