"""Points: the instants of a set that its halves hold, what is to be done about them, and what is kept of them."""
