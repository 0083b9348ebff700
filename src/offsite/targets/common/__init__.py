"""What all targets stand on: listeners, connections, grants, work in the background, counters."""
