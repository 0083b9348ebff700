"""How well a pool is, in ME4's words."""

from __future__ import annotations

from enum import Enum


class Health(Enum):
    """With ME4's numbers."""

    OK = 0
    DEGRADED = 1  # something is refused, or put off
    FAULT = 2  # what hosts write is not safe

    @property
    def word(self) -> str:
        return self.name if self is Health.OK else self.name.capitalize()
