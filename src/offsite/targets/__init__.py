"""Floor 3: how hosts reach volumes."""
