"""What an image must be: a dictionary of blocks, and what each block may be after a crash."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace

BLOCK = 512
ZERO = bytes(BLOCK)

Blocks = dict[int, bytes]  # by block number; what is not there is zero


@dataclass
class Model:
    """What an image must be. `versions`: what each block may be after a crash, since it was last flushed."""

    name: str
    kind: str
    parent: int | None
    size: int
    blocks: Blocks = field(default_factory=dict)
    versions: defaultdict[int, set[bytes]] = field(default_factory=lambda: defaultdict(set))

    def copy(self) -> Model:
        return replace(self, blocks=dict(self.blocks), versions=defaultdict(set))

    def set(self, number: int, block: bytes) -> None:
        self.versions[number] |= {self.blocks.get(number, ZERO), block}
        if block == ZERO:
            self.blocks.pop(number, None)
        else:
            self.blocks[number] = block

    def get(self, offset: int, length: int) -> bytes:
        first, last = offset // BLOCK, -(-(offset + length) // BLOCK)
        joined = b"".join(self.blocks.get(number, ZERO) for number in range(first, last))
        return joined[offset - first * BLOCK :][:length]

    def put(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        for number in range(offset // BLOCK, -(-end // BLOCK)):
            start = number * BLOCK
            low, high = max(start, offset), min(start + BLOCK, end)
            old = self.blocks.get(number, ZERO)
            self.set(number, old[: low - start] + data[low - offset : high - offset] + old[high - start :])

    def zero(self, offset: int, length: int) -> None:
        """As put of zeros, at the cost of what is there."""
        end = offset + length
        for number in [n for n in self.blocks if (n + 1) * BLOCK > offset and n * BLOCK < end]:
            low, high = max(number * BLOCK, offset), min((number + 1) * BLOCK, end)
            self.put(low, bytes(high - low))

    def cut(self, size: int) -> None:
        self.zero(size, max(0, self.size - size))
        self.size = size

    def settle(self) -> None:
        self.versions.clear()
