"""Replication sets, as this system's users see and change them."""
