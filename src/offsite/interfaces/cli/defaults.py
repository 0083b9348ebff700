"""What the command line takes where nothing is given."""

from __future__ import annotations

API_PORT, NBD_PORT, PEER_PORT = 8443, 10809, 7443
LISTEN = "127.0.0.1"
POOL = "A"
