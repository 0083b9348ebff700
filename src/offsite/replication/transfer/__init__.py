"""The course of a run: what the sender and the receiver do."""
