"""The events of a system."""
