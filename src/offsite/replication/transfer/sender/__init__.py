"""The primary's side of a run."""
