"""Which initiator may use which image, with which access; and which initiators have been seen.

A map says it for one initiator, the default map for everyone who has no map of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import structlog
from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from offsite.access import tables
from offsite.errors import BadParameter, LunInUse, MapNotFound, StateDirectoryError, VolumeNotFound
from offsite.pools.catalog import has_image, image_names
from offsite.pools.needs import Need
from offsite.store.database import Database

Access = Literal["read-write", "read-only", "no-access"]
Granted = Literal["read-write", "read-only"]

LUN_MAX = 1023  # as on ME4
INITIATOR_BYTES_MAX = 256  # an iSCSI name has at most 223, an identity of TLS 64 characters
INITIATORS_MAX = 1024  # seen from outside, so bounded: the one not seen for longest is forgotten
_DEFAULT = ""  # initiator of the default map

_log = structlog.get_logger("offsite.access")


@dataclass(frozen=True, slots=True)
class Map:
    image_id: int
    initiator: str  # '' for the default map
    access: Access
    lun: int | None

    @property
    def is_default(self) -> bool:
        return self.initiator == _DEFAULT


@dataclass(frozen=True, slots=True)
class Initiator:
    id: str  # tls:NAME or nbd:ADDRESS
    nickname: str | None
    last_seen_at: float | None  # seconds since the epoch


class Maps:
    """The maps of a system. Safe to use from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def map(self, image_id: int, initiator: str | None, access: Access, lun: int | None = None) -> None:
        """Makes or replaces the map of `image_id` for `initiator`; None stands for everyone.

        Raises VolumeNotFound for an image that is not there, BadParameter for a LUN or an initiator outside
        their rules, InUse when the initiator has another volume at that LUN.
        """
        _check(initiator, access, lun)
        key = _DEFAULT if initiator is None else initiator
        with self._database.transaction() as connection:
            _check_image(connection, image_id)
            if lun is not None:
                _check_lun(connection, image_id, key, lun)
            statement = upsert(tables.maps).values(image_id=image_id, initiator=key, access=access, lun=lun)
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["image_id", "initiator"], set_={"access": access, "lun": lun}
                )
            )

    def unmap(self, image_id: int, initiator: str | None) -> None:
        """Removes the map of `image_id` for `initiator`; None: the default map. Raises MapNotFound."""
        key = _DEFAULT if initiator is None else initiator
        where = (tables.maps.c.image_id == image_id) & (tables.maps.c.initiator == key)
        with self._database.transaction() as connection:
            if connection.execute(delete(tables.maps).where(where)).rowcount == 0:
                whose = f"for initiator {initiator!r}" if initiator is not None else "for all initiators"
                raise MapNotFound(f"volume {image_id} has no map {whose}; there is nothing to unmap")

    def access(self, image_id: int, initiator: str) -> Granted | None:
        """What `initiator` may do with `image_id`; None: it may not even know of it."""
        found = self.granted(initiator).get(image_id)
        return None if found is None else cast(Granted, found.access)

    def granted(self, initiator: str) -> dict[int, Map]:
        """All images that `initiator` may use: by their id, the map that says so. One of its own goes before the
        default one."""
        maps = tables.maps
        statement = (
            select(maps)
            .where(maps.c.initiator.in_((_DEFAULT, initiator)))
            .order_by(maps.c.initiator)  # '' first, so that the initiator's own map overwrites it
        )
        with self._database.read() as connection:
            rows = connection.execute(statement)
            found = {row.image_id: Map(row.image_id, row.initiator, row.access, row.lun) for row in rows}
        return {image_id: each for image_id, each in found.items() if each.access != "no-access"}

    def maps(self) -> list[Map]:
        """All maps, by image and initiator, the default map of an image first."""
        maps = tables.maps
        with self._database.read() as connection:
            rows = connection.execute(select(maps).order_by(maps.c.image_id, maps.c.initiator))
            return [Map(row.image_id, row.initiator, row.access, row.lun) for row in rows]

    def initiators(self) -> list[Initiator]:
        """All initiators that have been seen, by id."""
        initiators = tables.initiators
        with self._database.read() as connection:
            rows = connection.execute(select(initiators).order_by(initiators.c.id))
            return [Initiator(row.id, row.nickname, row.last_seen_at) for row in rows]

    def seen(self, initiator: str, now: float) -> None:
        """Records that `initiator` was here at `now` (seconds since the epoch), if that can be written."""
        try:
            self._note(initiator, now)
        except StateDirectoryError as error:  # hosts get in on a full or read-only disk, too
            _log.warning("cannot record when an initiator connected", initiator=initiator, reason=str(error))

    def _note(self, initiator: str, now: float) -> None:
        table = tables.initiators
        with self._database.transaction() as connection:
            found = connection.execute(update(table).where(table.c.id == initiator).values(last_seen_at=now))
            if found.rowcount:
                return
            connection.execute(insert(table).values(id=initiator, last_seen_at=now))
            newest = select(table.c.id).where(table.c.nickname.is_(None))
            newest = newest.order_by(table.c.last_seen_at.desc()).limit(INITIATORS_MAX)
            connection.execute(delete(table).where(table.c.nickname.is_(None), table.c.id.not_in(newest)))


def find_mapped(connection: Connection, image_ids: Sequence[int]) -> Iterator[tuple[int, Need]]:
    """What needs images to stay: whom they are mapped to."""
    maps = tables.maps
    chosen = select(maps.c.image_id, maps.c.initiator).where(maps.c.access != "no-access")
    for row in connection.execute(chosen.where(maps.c.image_id.in_(image_ids)).order_by(maps.c.initiator)):
        yield row.image_id, Need(f"it is mapped to {row.initiator or 'all initiators'}")


def _check(initiator: str | None, access: str, lun: int | None) -> None:
    if access not in ("read-write", "read-only", "no-access"):
        raise BadParameter(f"access {access!r} is not one of read-write, read-only, no-access")
    if lun is not None and not 0 <= lun <= LUN_MAX:
        raise BadParameter(f"LUN {lun} is outside 0 to {LUN_MAX}")
    if initiator is None:
        return
    if not initiator.isprintable() or not 1 <= len(initiator.encode()) <= INITIATOR_BYTES_MAX:
        raise BadParameter(
            f"initiator {initiator[:INITIATOR_BYTES_MAX]!r} does not have 1 to {INITIATOR_BYTES_MAX} printable bytes"
        )


def _check_image(connection: Connection, image_id: int) -> None:
    if not has_image(connection, image_id):
        raise VolumeNotFound(f"volume {image_id} does not exist; it cannot be mapped")


def _check_lun(connection: Connection, image_id: int, initiator: str, lun: int) -> None:
    maps = tables.maps
    others = select(maps.c.image_id).where(
        maps.c.initiator == initiator, maps.c.lun == lun, maps.c.image_id != image_id
    )
    taken = connection.execute(others).first()
    if taken is not None:
        whose = f"initiator {initiator!r}" if initiator else "the default map"
        name = image_names(connection, [taken.image_id])[taken.image_id]
        raise LunInUse(f"LUN {lun} of {whose} is already used by volume {name!r}; choose another LUN")
