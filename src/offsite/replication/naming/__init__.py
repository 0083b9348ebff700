"""Names and numbers of what replication makes, and addresses of systems. No I/O here."""
