"""Floor 1: all metadata of a system, in one SQLite database."""
