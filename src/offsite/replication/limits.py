"""How many peer connections and replication sets a system may have: what ME4's hardware allows, unless a user lets it
be more."""

from __future__ import annotations

from offsite.errors import InUse
from offsite.replication import records
from offsite.store.database import Database
from offsite.store.settings import MAXIMUM_PEER_CONNECTIONS, MAXIMUM_REPLICATION_SETS, Setting, Settings


class Limits:
    """Of either side: the secondary half of a set counts, too."""

    def __init__(self, database: Database, system_name: str) -> None:
        self._database = database
        self._settings = Settings(database)
        self._system_name = system_name

    def check_new_set(self) -> None:
        """Raises InUse when there may be no more."""
        with self._database.read() as connection:
            count = len(records.all_sets(connection))
        self._check(count, "replication sets", MAXIMUM_REPLICATION_SETS)

    def check_new_peer(self) -> None:
        """Raises InUse when there may be no more."""
        with self._database.read() as connection:
            count = len(records.all_peers(connection))
        self._check(count, "peer connections", MAXIMUM_PEER_CONNECTIONS)

    def _check(self, count: int, what: str, setting: Setting[int]) -> None:
        most = self._settings.get(setting)
        if count >= most:
            raise InUse(
                f"system {self._system_name} has {count} {what}, and may have {most}; delete one there, or raise "
                f"its setting {setting.name}"
            )
