"""What a pool is to the floors above, whatever it is made of.

Local files are one backend; Ceph RBD is to be the next. So nothing here speaks of pages, files or
descriptors: images have offsets and lengths, and a difference is a sequence of extents. How pools of a backend come to
be and go: offsite.pools.backend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol

from sqlalchemy import Connection

from offsite.pools.health import Health
from offsite.pools.space import Thresholds

Kind = Literal["volume", "snapshot", "internal"]
"""`internal` images belong to replication: hidden from listings, deleted with their set."""

SIZE_BYTES_MAX = 128 << 40


@dataclass(frozen=True)
class ImageInfo:
    """What is known of an image, at the moment it was asked for."""

    id: int
    uuid: str
    pool: str
    name: str
    kind: Kind
    parent_id: int | None
    size_bytes: int
    created_at: float
    allocated_bytes: int  # mapped by this image, shared or not


Records = Callable[[Connection, Sequence[ImageInfo]], object]
"""More to be written in the same transaction as the images: so that a step of a run is one transaction.

It gets the image of each change (for a flush, none), and is called after the rows of the images were written. It may be
called with locks of the pool held: it does nothing but write records."""


def image_ids(images: Sequence[ImageInfo], names: Sequence[str]) -> list[int]:
    """The ids of those images that have these names, in the order of the names. Of two, as where one is deleted and
    made anew by one call, the later."""
    by_name = {image.name: image.id for image in images}
    return [by_name[name] for name in names]


@dataclass(frozen=True)
class Capacity:
    size_bytes: int
    allocated_bytes: int
    available_bytes: int  # less than the rest of the size when what the pool lies on has less left
    allocation_bytes: int  # the unit in which space is taken and given back
    provisioned_bytes: int  # sum of the sizes of all volumes: may exceed size_bytes with overcommit


class ExtentKind(Enum):
    DATA = "data"  # the new image has data here and the old one has none
    CHANGED = "changed"  # both have data here, and it may differ
    HOLE = "hole"  # the new image reads as zero here and the old one has data


@dataclass(frozen=True, slots=True)
class Extent:
    offset: int
    length: int
    kind: ExtentKind


class OpenImage(Protocol):
    """One thread's use of one image. Make one for each thread; close it.

    All I/O stands between `begin` and `end`. A snapshot waits until no writer is between them, and freed
    space is not used again until everyone who might still see it has passed `end`: so keep the time between
    them short (one batch of requests), and never wait for a network inside.

    Offsets and lengths are bytes, any alignment, within `size_bytes`; the caller has checked that.
    """

    @property
    def size_bytes(self) -> int: ...

    @property
    def allocation_bytes(self) -> int: ...

    def begin(self) -> None: ...

    def end(self) -> None: ...

    def read_nowait(self, offset: int, buffer: memoryview) -> bool:
        """Fills `buffer` if that needs no disk; else returns False, and `buffer` holds anything."""
        ...

    def read(self, offset: int, buffer: memoryview) -> None: ...

    def write(self, offset: int, data: memoryview) -> None:
        """Raises PoolFull, with nothing else hurt; OSError if the disk fails."""
        ...

    def write_zeroes(self, offset: int, length: int, *, allocate: bool = False) -> None:
        """Reads as zero from now on. Gives whole units of allocation back, unless `allocate`."""
        ...

    def discard(self, offset: int, length: int) -> None:
        """As write_zeroes, but that it never lacks space: where zeros in a part of a unit would need some and there is
        none, that part stays as it is."""
        ...

    def extents(self, offset: int, length: int) -> Iterator[tuple[int, bool]]:
        """(length, has data) of one piece after another, neighbours of a kind joined."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Create:
    """A new image that is all hole."""

    name: str
    size_bytes: int
    kind: Kind = "volume"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An image with the content that `source` has at this instant, and `source` (or `parent`) for a parent.

    `created_at` is the instant to show, for a source that does not change and has that content for longer."""

    source: int
    name: str
    kind: Kind = "snapshot"
    parent: int | None = None
    created_at: float | None = None


@dataclass(frozen=True, slots=True)
class Clone:
    """As Snapshot, without a parent: an independent image, which may share what neither has written since."""

    source: int
    name: str
    kind: Kind = "volume"


@dataclass(frozen=True, slots=True)
class Replace:
    """`target` gets content and size of `source`: rollback, reset, and the commit of a run."""

    target: int
    source: int


@dataclass(frozen=True, slots=True)
class Resize:
    """A new size. What is cut off is discarded; what is added is hole. Callers see to it that hosts never
    see a volume shrink."""

    image_id: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Rename:
    image_id: int
    name: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Snapshots of the image stay, and lose their parent."""

    image_id: int


Change = Create | Snapshot | Clone | Replace | Resize | Rename | Delete


class Pool(Protocol):
    """Images and what can be done with them. Safe to use from any thread."""

    name: str
    id: int

    def images(self) -> list[ImageInfo]:
        """All images, internal ones too."""
        ...

    def image(self, image_id: int) -> ImageInfo:
        """Raises VolumeNotFound."""
        ...

    def apply(self, changes: Sequence[Change], records: Records | None = None) -> list[ImageInfo]:
        """Makes all changes at one instant, in one transaction together with `records`, durable on return.

        The instant waits for the writes in flight on every image that is a source or a target. Changes are
        made in their order, and a later one sees what an earlier one did; to name an image that an earlier
        change of the same call makes, use -1 for the first change's image, -2 for the second's, and so on.
        Returns the image of each change (for Delete: as it was). When it raises (NameInUse, VolumeNotFound,
        BadParameter, PoolFull…), nothing has changed.

        Names have been checked by `offsite.names` before; the pool refuses one that is in use in any pool.
        """
        ...

    def open(self, image_id: int) -> OpenImage: ...

    def difference(self, old: int | None, new: int, start: int = 0) -> Iterator[Extent]:
        """What to do to `old` (None: an image that is all hole) to get `new`: extents by rising offset.

        Begins at `start`. Costs time by what differs, not by size. A CHANGED extent may hold stretches that
        are equal after all: it is found without reading data. Neither image may be written meanwhile.
        """
        ...

    def flush(self, records: Records | None = None) -> None:
        """Returns when all that was acknowledged before is durable, with `records` in the same commit."""
        ...

    def capacity(self) -> Capacity: ...

    @property
    def thresholds(self) -> Thresholds: ...

    @property
    def overcommit(self) -> bool:
        """Whether volumes may be promised more space than the pool has."""
        ...

    def configure(self, thresholds: Thresholds, *, overcommit: bool) -> None:
        """Durable on return. Raises InUse when too much is promised already to do without overcommit."""
        ...

    @property
    def health(self) -> tuple[Health, str]:
        """How the pool is, and why it is not well."""
        ...

    def begin(self) -> None:
        """From here on the pool is in use; before, it was only read. Makes good what a crash has left half done.

        Raises StateDirectoryError."""
        ...

    def close(self) -> None:
        """Flushes, and stops the background work. Open images must not be used any more."""
        ...

    def abandon(self) -> None:
        """As `close`, for a pool that was destroyed: nothing is flushed."""
        ...
