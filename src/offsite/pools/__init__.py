"""Floor 2: where the data is."""
