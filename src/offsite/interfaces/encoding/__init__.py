"""How answers and images travel between a system and its command line."""
