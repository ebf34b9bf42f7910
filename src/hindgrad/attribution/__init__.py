"""Which examples, labels and settings made a prediction."""
