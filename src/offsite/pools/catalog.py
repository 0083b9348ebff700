"""Images of every pool as the database has them, for the floors above: which there are, by id and by name.

Every function works within the transaction of the connection that it is given: so what it returns is still so when the
caller's own rows are written. Everything else that is known of an image its pool tells: see protocol.ImageInfo.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, Select, func, select, union_all

from offsite.errors import ObjectNotFound
from offsite.pools.tables import images, volume_groups


def has_image(connection: Connection, image_id: int) -> bool:
    return connection.execute(select(images.c.id).where(images.c.id == image_id)).first() is not None


def image_id_by_name(connection: Connection, name: str) -> int:
    """Raises ObjectNotFound."""
    found = connection.execute(select(images.c.id).where(images.c.name == name)).scalar()
    if found is None:
        raise ObjectNotFound(f"image {name!r} does not exist")
    return int(found)


def image_ids(connection: Connection, names: Collection[str]) -> list[int]:
    """Ids of the images of these names, as far as they are there, rising."""
    chosen = select(images.c.id).where(images.c.name.in_(names)).order_by(images.c.id)
    return list(connection.execute(chosen).scalars())


def image_names(connection: Connection, image_ids: Collection[int]) -> dict[int, str]:
    """Names by id, by rising id, of those of these images that are there."""
    chosen = select(images.c.id, images.c.name).where(images.c.id.in_(image_ids)).order_by(images.c.id)
    return {row.id: row.name for row in connection.execute(chosen)}


def volume_bytes(connection: Connection, image_ids: Select[tuple[int]]) -> int:
    """The sizes of all volumes among these images together. A query chooses them: they may be many."""
    chosen = select(func.coalesce(func.sum(images.c.size_bytes), 0))
    return int(connection.execute(chosen.where(images.c.kind == "volume", images.c.id.in_(image_ids))).scalar_one())


def all_names(connection: Connection) -> set[str]:
    """Of images and volume groups, which share one name space."""
    return set(connection.execute(union_all(select(images.c.name), select(volume_groups.c.name))).scalars())


def names_in_use(connection: Connection, names: Collection[str]) -> list[str]:
    """Those of these names that an image or a volume group has."""
    of_images = select(images.c.name).where(images.c.name.in_(names))
    of_groups = select(volume_groups.c.name).where(volume_groups.c.name.in_(names))
    return list(connection.execute(union_all(of_images, of_groups)).scalars())
