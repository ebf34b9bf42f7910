"""Training run backwards, to the bit."""
