"""Franceschi, Donini, Frasconi & Pontil 2017: hypergradients forward and in reverse."""
