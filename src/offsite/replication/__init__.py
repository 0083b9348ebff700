"""Floor 3: how a volume gets to another system."""
