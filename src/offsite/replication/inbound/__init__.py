"""What other systems ask of this one, and who they are."""
