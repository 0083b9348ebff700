"""The first page of a data file: whose it is, and which state of the database belongs to it.

A data file is worth nothing without the database that names its pages, and that one is worth less than nothing with
a data file of another time: it would give a volume the bytes of another. So both hold the same generation.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from offsite.errors import RESTORE_WHOLE, StateDirectoryError
from offsite.units import format_size

HEADER_BYTES_MAX = 1 << 20  # a page
_MAGIC = b"OFFSITE POOL\0\0\0"
_FIRST = struct.Struct("<16s16sQQ")  # version 1: magic, UUID of the pool, page size, pool size
_SECOND = struct.Struct("<16s16sQQ16sQ16sQ32s32s")  # and: UUID of the system, generation, names of pool and system
_CHECKSUM = struct.Struct("<I")  # CRC-32 of what stands before it
HEADER_BYTES = _SECOND.size + _CHECKSUM.size


@dataclass(frozen=True, slots=True)
class Generation:
    """Of a data file and its database, as a pair. `id` is drawn at each start: two copies of one directory that were
    both started differ in it. `stamp` counts within a start."""

    starts: int
    id: bytes
    stamp: int

    @classmethod
    def first(cls) -> Generation:
        return cls(0, uuid.uuid4().bytes, 0)

    @classmethod
    def of_text(cls, text: str | None) -> Generation | None:
        """Raises StateDirectoryError."""
        if text is None:
            return None
        try:
            starts, stamp, id_ = text.split(".")
            return cls(int(starts), bytes.fromhex(id_), int(stamp))
        except ValueError as error:
            raise StateDirectoryError(
                f"the database is damaged: {text!r} is not a generation; {RESTORE_WHOLE}"
            ) from error

    @property
    def text(self) -> str:
        """As it stands in the database."""
        return f"{self.starts}.{self.stamp}.{self.id.hex()}"

    @property
    def next_start(self) -> Generation:
        return Generation(self.starts + 1, uuid.uuid4().bytes, 0)

    @property
    def next_stamp(self) -> Generation:
        return Generation(self.starts, self.id, self.stamp + 1)


@dataclass(frozen=True, slots=True)
class Header:
    """`generation` is None in one of version 1, which had none."""

    pool: bytes  # UUID
    page_bytes: int
    size_bytes: int
    generation: Generation | None
    system: bytes = bytes(16)  # UUID; zero before the first start of the system is complete
    pool_name: str = ""
    system_name: str = ""

    def packed(self) -> bytes:
        assert self.generation is not None
        of = self.generation
        body = _SECOND.pack(
            _MAGIC + b"\2",
            self.pool,
            self.page_bytes,
            self.size_bytes,
            self.system,
            of.starts,
            of.id,
            of.stamp,
            self.pool_name.encode()[:32],
            self.system_name.encode()[:32],
        )
        return body + _CHECKSUM.pack(zlib.crc32(body))

    @classmethod
    def unpacked(cls, data: bytes) -> Header | str:
        """Of what a file begins with; what is wrong with it, if it is not a header."""
        if len(data) < _FIRST.size:
            return f"has {len(data)} bytes; it was cut off"
        if not is_header(data):
            return "does not begin with the header of a pool of Offsite"
        magic, pool, page_bytes, size_bytes = _FIRST.unpack_from(data)
        if magic[-1] == 1:
            return cls(pool, page_bytes, size_bytes, None)
        if magic[-1] != 2:
            return f"is of a newer version of Offsite (data file version {magic[-1]}); use that version or a newer one"
        body, checksum = data[: _SECOND.size], data[_SECOND.size : HEADER_BYTES]
        if checksum != _CHECKSUM.pack(zlib.crc32(body)):
            return "has a damaged header"
        *_, system, starts, id_, stamp, pool_name, system_name = _SECOND.unpack(body)
        names = [name.rstrip(b"\0").decode(errors="replace") for name in (pool_name, system_name)]
        return cls(pool, page_bytes, size_bytes, Generation(starts, id_, stamp), system, *names)

    @property
    def sentence(self) -> str:
        """Whose a data file or a device is, for people."""
        pool = f"pool {self.pool_name}" if self.pool_name else f"a pool ({self.pool.hex()})"
        return f"{pool} of system {self.system_name}" if self.system_name else f"{pool} of Offsite"


def is_header(data: bytes) -> bool:
    return data.startswith(_MAGIC)


@dataclass(frozen=True, slots=True)
class Expected:
    """What the database says of a pool's data file."""

    name: str
    pool: bytes
    page_bytes: int
    size_bytes: int
    system: bytes
    previous: Generation | None
    current: Generation | None

    @classmethod
    def of_row(cls, row: Mapping[str, Any], system_uuid: str | None) -> Self:
        """From a row of `pools`; one of a version without generations lacks those columns."""
        return cls(
            row["name"],
            bytes.fromhex(row["uuid"]),
            row["page_bytes"],
            row["size_bytes"],
            uuid.UUID(system_uuid).bytes if system_uuid else bytes(16),
            Generation.of_text(row.get("previous_generation")),
            Generation.of_text(row.get("generation")),
        )

    def problem(self, found: Header | str, actual_bytes: int) -> str:
        """Why the file with this header is not to be used; empty when it is the right one. It follows the file's
        name in a sentence."""
        if isinstance(found, str):
            return f"{found}; {RESTORE_WHOLE}"
        if found.pool != self.pool:
            return (
                f"belongs to another pool: it is {found.sentence} ({found.pool.hex()}), and should be pool "
                f"{self.name} ({self.pool.hex()}); {RESTORE_WHOLE}"
            )
        if any(found.system) and any(self.system) and found.system != self.system:
            return f"belongs to another system: it is {found.sentence}; {RESTORE_WHOLE}"
        if (found.page_bytes, found.size_bytes) != (self.page_bytes, self.size_bytes):
            return (
                f"says it has {found.size_bytes} bytes in pages of {found.page_bytes}, and the database says "
                f"{self.size_bytes} in pages of {self.page_bytes}; {RESTORE_WHOLE}"
            )
        if actual_bytes < self.size_bytes:
            return (
                f"has {format_size(actual_bytes)} and should have {format_size(self.size_bytes)}; it was cut off; "
                f"{RESTORE_WHOLE}"
            )
        if found.generation not in (self.previous, self.current):
            return f"and the database do not belong together: {self._older(found.generation)}; {RESTORE_WHOLE}"
        return ""

    def _older(self, found: Generation | None) -> str:
        ours = self.current
        if ours is None or (found is not None and (found.starts, found.stamp) > (ours.starts, ours.stamp)):
            return f"the database is older than the data of pool {self.name}"
        if found is None or (found.starts, found.stamp) < (ours.starts, ours.stamp):
            return f"the data of pool {self.name} is older than the database"
        return f"the data of pool {self.name} was used with another copy of the database"
