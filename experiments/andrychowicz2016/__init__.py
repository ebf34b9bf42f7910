"""Andrychowicz et al. 2016: learning to learn by gradient descent by gradient descent."""
