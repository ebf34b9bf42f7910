"""Maclaurin, Duvenaud & Adams 2015: hyperparameters by reversible learning."""
