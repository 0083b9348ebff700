"""Floor 5: how people and programs ask."""
