"""`hindgrad learn-optimizer` and `hindgrad compare-optimizers`."""
