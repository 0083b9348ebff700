"""Users, and who is logged in."""
