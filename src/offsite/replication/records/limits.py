"""How many peer connections and replication sets a system may have: what ME4's hardware allows, unless a user lets it
be more."""

from __future__ import annotations

from sqlalchemy import Connection

from offsite.errors import LimitReached
from offsite.replication.records import peer_records, set_records
from offsite.store.settings import MAXIMUM_PEER_CONNECTIONS, MAXIMUM_REPLICATION_SETS, Setting, Settings


class Limits:
    """Of either side: the secondary half of a set counts, too."""

    def __init__(self, system_name: str) -> None:
        self._system_name = system_name

    def check_new_set(self, connection: Connection) -> None:
        """In the transaction that makes it, too. Raises LimitReached when there may be no more."""
        self._check(connection, len(set_records.all_sets(connection)), "replication sets", MAXIMUM_REPLICATION_SETS)

    def check_new_peer(self, connection: Connection) -> None:
        """In the transaction that makes it, too. Raises LimitReached when there may be no more."""
        self._check(connection, len(peer_records.all_peers(connection)), "peer connections", MAXIMUM_PEER_CONNECTIONS)

    def _check(self, connection: Connection, count: int, what: str, setting: Setting[int]) -> None:
        most = Settings.read(connection, setting)
        if count >= most:
            raise LimitReached(
                f"system {self._system_name} has {count} {what}, and its maximum is {most}; delete one there, or raise "
                f"its setting {setting.name}"
            )
