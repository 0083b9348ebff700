"""How fast runs may send, and when."""
