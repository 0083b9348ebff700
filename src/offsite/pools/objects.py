"""The objects in which a backend keeps the content of images, when it cannot join the transaction of the database.

    intend ──► the backend makes the new objects ──► commit ──► it removes those let go ──► settle
      │ crash                      │ crash             │ crash              │ crash
      ▼                            ▼                   ▼                    ▼
      begin: of all that is on record as under way, the objects that no image has are removed

A change of images never changes an object: it makes a new one, and the image names that from the commit on. So the rows
in the database are the truth, at any instant, and the backend follows. Only what is on record is ever removed: after a
database was restored from an older copy, objects of images that it does not know are left alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sqlalchemy import Connection, delete, insert, select

from offsite.pools.tables import image_objects, images, pool_intents
from offsite.store.database import Database


class Objects:
    """Those of one pool."""

    def __init__(self, database: Database, pool_id: int) -> None:
        self._database = database
        self._pool_id = pool_id

    def by_image(self, connection: Connection) -> dict[int, str]:
        """The object of each image, by the image's id."""
        chosen = select(image_objects).join(images).where(images.c.pool_id == self._pool_id)
        return {row.image_id: row.object for row in connection.execute(chosen)}

    def intend(self, objects: Collection[str]) -> None:
        """Before the backend makes these. Durable on return."""
        if objects:
            with self._database.transaction() as connection:
                self._insert(connection, objects)

    def commit(self, connection: Connection, objects: dict[int, str], let_go: Iterable[str]) -> None:
        """As a part of the commit: images have these objects from now on, and nobody needs those that are let go."""
        for image_id, each in objects.items():
            connection.execute(delete(image_objects).where(image_objects.c.image_id == image_id))
            connection.execute(insert(image_objects).values(image_id=image_id, object=each))
            connection.execute(delete(pool_intents).where(pool_intents.c.object == each))
        self._insert(connection, let_go)

    def unneeded(self) -> list[str]:
        """What is to be removed from the backend; some of it may not be there."""
        with self._database.read() as connection:
            named = select(image_objects.c.object)
            chosen = select(pool_intents.c.object).where(pool_intents.c.pool_id == self._pool_id)
            return list(connection.execute(chosen.where(pool_intents.c.object.not_in(named))).scalars())

    def settle(self, objects: Collection[str]) -> None:
        """These are removed."""
        if objects:
            with self._database.transaction() as connection:
                connection.execute(delete(pool_intents).where(pool_intents.c.object.in_(objects)))

    def _insert(self, connection: Connection, objects: Iterable[str]) -> None:
        for each in objects:
            connection.execute(insert(pool_intents).values(object=each, pool_id=self._pool_id))
