"""The secondary's side of a run."""
