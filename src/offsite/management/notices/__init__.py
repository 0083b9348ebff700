"""Events sent to people and programs."""
