"""Peer connections, and what is known of the systems at their other ends."""
