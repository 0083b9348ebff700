"""The rows of images, whatever holds their content: names are unique in the system, groups included."""

from __future__ import annotations

from sqlalchemy import Connection, Executable, delete, insert, update
from sqlalchemy.exc import IntegrityError

from offsite.errors import NameInUse
from offsite.pools.groups import find_group
from offsite.pools.protocol import ImageInfo
from offsite.pools.tables import images


def insert_image(connection: Connection, pool_id: int, image: ImageInfo) -> None:
    """Raises NameInUse."""
    row = insert(images).values(
        id=image.id,
        uuid=image.uuid,
        pool_id=pool_id,
        name=image.name,
        kind=image.kind,
        parent_id=image.parent_id,
        size_bytes=image.size_bytes,
        created_at=image.created_at,
        nodes=b"",
    )
    _execute_naming(connection, row, image.name)


def rename_image(connection: Connection, image_id: int, name: str) -> None:
    """Raises NameInUse."""
    _execute_naming(connection, update(images).where(images.c.id == image_id).values(name=name), name)


def delete_image(connection: Connection, image_id: int) -> None:
    """Its snapshots stay, and lose their parent."""
    connection.execute(update(images).where(images.c.parent_id == image_id).values(parent_id=None))
    connection.execute(delete(images).where(images.c.id == image_id))


def _execute_naming(connection: Connection, statement: Executable, name: str) -> None:
    """The pool has checked its own names; the database knows those of the others, and of volume groups."""
    try:
        connection.execute(statement)
    except IntegrityError as error:
        raise NameInUse(f"the name {name!r} is in use in another pool; names are unique in the system") from error
    if find_group(connection, name) is not None:
        raise NameInUse(f"the name {name!r} is in use by a volume group; choose another name")
