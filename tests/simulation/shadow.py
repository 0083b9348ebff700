"""What every image of a pool has to hold, kept beside the real pool by all that is asked of it.

A block may hold what was written last; after a crash, also whatever it has held since the last commit. A change of
images that a crash has cut off has been made, or has not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from offsite.pools.protocol import Change, Clone, Create, Delete, Rename, Replace, Resize, Snapshot

BLOCK_BYTES = 4096
ZERO = bytes(BLOCK_BYTES)

Blocks = Mapping[int, bytes]
"""By block number; what is not there is zero."""


class Violation(AssertionError):
    """Something that must always hold does not. The message begins with which."""


@dataclass
class Content:
    """Of one image."""

    size_bytes: int
    blocks: dict[int, bytes] = field(default_factory=dict)
    versions: dict[int, set[bytes]] = field(default_factory=dict)

    def copy(self) -> Content:
        return Content(self.size_bytes, dict(self.blocks))

    def set(self, number: int, block: bytes) -> None:
        self.versions.setdefault(number, {self.blocks.get(number, ZERO)}).add(block)
        if block == ZERO:
            self.blocks.pop(number, None)
        else:
            self.blocks[number] = block

    def put(self, offset: int, data: bytes) -> None:
        for at in range(0, len(data), BLOCK_BYTES):
            self.set((offset + at) // BLOCK_BYTES, data[at : at + BLOCK_BYTES])

    def zero(self, offset: int, length: int) -> None:
        for number in [n for n in self.blocks if offset <= n * BLOCK_BYTES < offset + length]:
            self.set(number, ZERO)

    def resize(self, size_bytes: int) -> None:
        self.zero(size_bytes, max(0, self.size_bytes - size_bytes))
        self.size_bytes = size_bytes

    def problem_of(self, found: bytes, *, after_crash: bool) -> str:
        """How what was found in the image differs from what may be there."""
        if len(found) != self.size_bytes:
            return f"it has {len(found)} bytes, not {self.size_bytes}"
        for at in range(0, len(found), BLOCK_BYTES):
            number, block = at // BLOCK_BYTES, found[at : at + BLOCK_BYTES]
            wanted = self.blocks.get(number, ZERO)
            if block != wanted and not (after_crash and block in self.versions.get(number, ())):
                return f"block {number} holds {block[:48]!r}, not {wanted[:48]!r}"
        return ""

    def found(self, data: bytes) -> Content:
        blocks = {at // BLOCK_BYTES: data[at : at + BLOCK_BYTES] for at in range(0, len(data), BLOCK_BYTES)}
        return Content(len(data), {number: block for number, block in blocks.items() if block != ZERO})


@dataclass
class Shadow:
    """Of one pool: its images by name, and what they would be, had the change that was cut off been made."""

    images: dict[str, Content] = field(default_factory=dict)
    cut: dict[str, Content] | None = None

    def settle(self) -> None:
        """All that was written is durable."""
        for content in self.images.values():
            content.versions.clear()

    def changed(self, changes: Sequence[Change], names: Mapping[int, str]) -> dict[str, Content]:
        """What there is after `changes`, all of it durable; `names` has the images that are there, by their ids."""
        images = {name: content.copy() for name, content in self.images.items()}
        made: list[str] = []

        def name_of(image_id: int) -> str:
            return made[-image_id - 1] if image_id < 0 else names[image_id]

        for change in changes:
            made.append(_make(images, change, name_of))
        return images

    def after_crash(self, found: Mapping[str, bytes]) -> str:
        """Takes over what was found. Returns what is wrong with it."""
        problems = []
        for images in (self.cut, self.images):
            if images is None:
                continue
            problem = _problem(images, found)
            if not problem:
                self.images = {name: images[name].found(data) for name, data in found.items()}
                self.cut = None
                return ""
            problems.append(problem)
        return "; or ".join(problems)


def _make(images: dict[str, Content], change: Change, name_of: object) -> str:
    assert callable(name_of)
    match change:
        case Create(name, size_bytes):
            images[name] = Content(size_bytes)
            return name
        case Snapshot(source, name) | Clone(source, name):
            images[name] = images[name_of(source)].copy()
            return name
        case Replace(target, source):
            images[name_of(target)] = images[name_of(source)].copy()
            return str(name_of(target))
        case Resize(image_id, size_bytes):
            images[name_of(image_id)].resize(size_bytes)
            images[name_of(image_id)].versions.clear()
            return str(name_of(image_id))
        case Rename(image_id, name):
            images[name] = images.pop(name_of(image_id))
            return name
        case Delete(image_id):
            del images[name_of(image_id)]
            return str(name_of(image_id))


def _problem(images: Mapping[str, Content], found: Mapping[str, bytes]) -> str:
    if images.keys() != found.keys():
        return f"the images are {sorted(found)}, not {sorted(images)}"
    for name, data in found.items():
        problem = images[name].problem_of(data, after_crash=True)
        if problem:
            return f"{name}: {problem}"
    return ""


def same(one: Content, other: Content) -> bool:
    return one.size_bytes == other.size_bytes and one.blocks == other.blocks


def frozen(content: Content) -> Content:
    return replace(content, blocks=dict(content.blocks), versions={})
