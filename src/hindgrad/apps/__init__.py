"""The commands, for people with data and no interest in hypergradients."""
