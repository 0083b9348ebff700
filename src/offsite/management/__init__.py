"""Floor 4: what can be asked of a system, as one table of commands."""
