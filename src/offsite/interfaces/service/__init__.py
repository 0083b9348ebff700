"""What the service manager of the machine sees: logs and readiness."""
