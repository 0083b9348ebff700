"""What is said between two systems: messages, frames, batches. No I/O here."""
