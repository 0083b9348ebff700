"""How the command line ends, for scripts."""

from __future__ import annotations

DONE, REFUSED, WRONG_USAGE, DROPPED, INTERRUPTED = 0, 1, 2, 3, 130
