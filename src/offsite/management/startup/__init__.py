"""The state directory, and what a new system gets."""
