"""Which sets a peer may ask about: those that it has in common with this system. No other place checks it.

A set of another peer is answered for as one that is not there: nobody learns what others replicate here.
"""

from __future__ import annotations

from offsite.errors import InUse, ObjectNotFound
from offsite.replication.records import set_records
from offsite.replication.records.peer_records import PeerRecord
from offsite.replication.records.set_records import SetRecord
from offsite.replication.roles.generation import check_counterpart
from offsite.replication.roles.standing import Standing
from offsite.store.database import Database


class CommonSets:
    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self, peer: PeerRecord) -> list[SetRecord]:
        """In whatever role and state."""
        return [each for each in self._sets() if each.peer_id == peer.id]

    def find(self, peer: PeerRecord, uuid: str) -> SetRecord | None:
        return next((each for each in self.all(peer) if each.uuid == uuid), None)

    def get(self, peer: PeerRecord, uuid: str) -> SetRecord:
        """In whatever role and generation. Raises ObjectNotFound."""
        replication_set = self.find(peer, uuid)
        if replication_set is None:
            raise ObjectNotFound(
                "the replication set does not exist here; delete it on the other system with local-only"
            )
        return replication_set

    def secondary(self, peer: PeerRecord, uuid: str, generation: int) -> SetRecord:
        """The half here of a set whose primary the peer says to be. Raises ObjectNotFound or NotAllowed."""
        replication_set = self.get(peer, uuid)
        check_counterpart(replication_set, Standing("primary", generation))
        return replication_set

    def find_begun(self, peer: PeerRecord, uuid: str) -> SetRecord | None:
        """The secondary half that a repeated CreateSet has made already. Raises InUse for a uuid that is taken."""
        replication_set = next((each for each in self._sets() if each.uuid == uuid), None)
        if replication_set is not None and (replication_set.peer_id != peer.id or replication_set.role != "secondary"):
            raise InUse(f"the uuid {uuid} is not allowed for a new replication set here; create the set again")
        return replication_set

    def _sets(self) -> list[SetRecord]:
        with self._database.read() as connection:
            return set_records.all_sets(connection)
