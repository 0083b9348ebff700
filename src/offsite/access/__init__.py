"""Floor 2: who may use it: initiators, maps, and the certificates that name them."""
