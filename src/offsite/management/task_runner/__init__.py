"""What tasks do when their time has come."""
