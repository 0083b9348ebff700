"""One connection between two systems: TLS, frames, deadlines."""
