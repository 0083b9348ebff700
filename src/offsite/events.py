"""What happened, for the operator: the record, its codes, and the one function to tell it to.

Floors below management only need somewhere to say that something happened; management keeps it, and keeps apart what
different sources caused, so that nobody can push out the events of others. What a thread does is the system's own doing
unless it is done for someone, which whoever takes requests in says with `acting_for`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Source(StrEnum):
    """Who caused an event."""

    SYSTEM = "system"
    OPERATOR = "operator"  # a user, with a command
    PEER = "peer"
    STRANGER = "stranger"  # anyone who can reach a port


_acting_for: ContextVar[Source] = ContextVar("acting_for", default=Source.SYSTEM)


def act_for(source: Source) -> None:
    """All that this thread does from now on is caused by `source`."""
    _acting_for.set(source)


@contextmanager
def acting_for(source: Source) -> Iterator[None]:
    """What this thread does meanwhile is caused by `source`."""
    token = _acting_for.set(source)
    try:
        yield
    finally:
        _acting_for.reset(token)


class Severity(IntEnum):
    INFORMATIONAL = 0
    WARNING = 1
    ERROR = 2
    CRITICAL = 3
    RESOLVED = 4


@dataclass(frozen=True)
class EventKind:
    """A kind of event: its stable code, how bad it is, and what the operator should do about it."""

    code: int
    severity: Severity
    recommended_action: str = "- No action is required."
    fixed_source: Source | None = None  # none: whomever the thread acts for

    def source(self) -> Source:
        return self.fixed_source or _acting_for.get()


Report = Callable[[EventKind, str], None]
"""Tells an event: its kind, and a sentence that names the object and the values."""


def ignore(_kind: EventKind, _message: str) -> None:
    """A Report for tests and tools that keep no events."""


POOL_THRESHOLD_CROSSED = EventKind(
    571, Severity.WARNING, "- Add space to the pool, or delete volumes and snapshots that are not needed."
)
POOL_HIGH_THRESHOLD_CROSSED = EventKind(
    572,
    Severity.ERROR,
    "- The pool is nearly full. Add space now, or delete volumes and snapshots that are not needed.",
)
POOL_THRESHOLD_CLEARED = EventKind(573, Severity.RESOLVED)
POOL_FULL = EventKind(
    570,
    Severity.CRITICAL,
    "- Writes fail with ENOSPC. Add space to the pool or to the file system in the message, or delete snapshots.",
)
POOL_NOT_TIDIED = EventKind(
    568, Severity.WARNING, "- Check the disks of the pool and of the state directory. The system retries by itself."
)
POOL_SPACE_BACK = EventKind(560, Severity.RESOLVED)
STATE_NOT_WRITTEN = EventKind(
    561, Severity.CRITICAL, "- Hosts' flushes fail. Free space on the file system in the message, or repair its disk."
)
STATE_WRITTEN_AGAIN = EventKind(562, Severity.RESOLVED)
RESERVE_GIVEN_UP = EventKind(
    563, Severity.CRITICAL, "- Another program has filled the file system of the state directory. Free space on it."
)
RESERVE_KEPT_AGAIN = EventKind(564, Severity.RESOLVED)
POOL_FAILED = EventKind(569, Severity.CRITICAL, "- A sync to the disk failed. Check the disk, then restart the system.")
POOL_REMAINS = EventKind(
    665, Severity.WARNING, "- Find out why the file cannot be removed. The system retries at its next start."
)
PEER_CREATED = EventKind(574, Severity.INFORMATIONAL)
PEER_DELETED = EventKind(575, Severity.INFORMATIONAL)
PEER_CHANGED = EventKind(590, Severity.INFORMATIONAL)
PEER_CERTIFICATE_REPLACED = EventKind(
    591,
    Severity.WARNING,
    "- If no administrator of yours replaced it, delete the peer connection and find out who knew the password.",
)
SET_CREATED = EventKind(576, Severity.INFORMATIONAL)
SET_DELETED = EventKind(577, Severity.INFORMATIONAL)
SET_MODIFIED = EventKind(578, Severity.INFORMATIONAL)
RUN_COMPLETED = EventKind(579, Severity.INFORMATIONAL)
RUN_STARTED = EventKind(580, Severity.INFORMATIONAL)
SET_RESUMED = EventKind(581, Severity.INFORMATIONAL)
SET_SUSPENDED = EventKind(582, Severity.INFORMATIONAL, "- To continue, resume the replication set.")
RUN_FAILED = EventKind(583, Severity.ERROR, "- Read the error, correct its cause, and replicate again.")
SET_SUSPENDED_ITSELF = EventKind(
    584,
    Severity.ERROR,
    "- Read the error and correct its cause. The run is retried by itself and continues where it stopped.",
)
RUN_ABORTED = EventKind(585, Severity.INFORMATIONAL)
RUN_QUEUED = EventKind(586, Severity.INFORMATIONAL)
RUN_DROPPED = EventKind(587, Severity.INFORMATIONAL)
SET_HALF_MISSING = EventKind(
    588,
    Severity.WARNING,
    "- If the other half was deleted on purpose, delete this one as well: delete replication-set.",
)
RUN_SETTLED = EventKind(589, Severity.INFORMATIONAL)
SET_DIVERGED = EventKind(
    592,
    Severity.ERROR,
    "- Find out which system was restored from an older copy, or what was started twice. Then choose on the "
    "primary which data to keep: resolve replication-set.",
)
COPY_PROTECTED = EventKind(
    593,
    Severity.ERROR,
    "- Find out why the primary does not know this copy: it may have been restored from a backup, or be a "
    "different system.",
)
SECONDARY_IS_OLDER = EventKind(
    594, Severity.WARNING, "- If nobody restored the secondary on purpose, find out why its data is older."
)
SET_AGREES_AGAIN = EventKind(595, Severity.RESOLVED)
COPY_KEPT = EventKind(596, Severity.INFORMATIONAL, "- Delete the snapshots when they are no longer needed.")
DIVERGENCE_DECIDED = EventKind(597, Severity.INFORMATIONAL)
PEER_IS_A_COPY = EventKind(
    650,
    Severity.ERROR,
    "- Decide which of the two systems to keep, and stop the other one. Then accept the one to keep: set "
    "peer-connection accept-incarnation START NAME. Both starts are in show peer-connections.",
)
SYSTEM_IS_A_COPY = EventKind(
    651,
    Severity.ERROR,
    "- To keep the other system, stop this one. To keep this one, accept it on the peer: set peer-connection "
    "accept-incarnation START NAME.",
)
COPY_SETTLED = EventKind(652, Severity.RESOLVED)
PEER_FORGOT_SYSTEM = EventKind(
    690,
    Severity.ERROR,
    "- Follow the message: log in to the peer again, or delete its replication sets and the peer connection here.",
)
PEER_KNOWS_SYSTEM_AGAIN = EventKind(691, Severity.RESOLVED)
CLOCKS_DIFFER = EventKind(
    653, Severity.WARNING, "- Correct the clock that is wrong. Synchronize both systems with a time server (NTP)."
)
CLOCKS_AGREE = EventKind(654, Severity.RESOLVED)
PEER_GONE = EventKind(
    655, Severity.WARNING, "- Check that the other system runs and that its peer port can be reached from here."
)
PEER_BACK = EventKind(656, Severity.RESOLVED)
SYSTEM_STARTED = EventKind(600, Severity.INFORMATIONAL)
SYSTEM_STOPPED = EventKind(601, Severity.INFORMATIONAL)
KEYS_MADE_ANEW = EventKind(
    605, Severity.WARNING, "- Log in to each peer again: set peer-connection remote-username USER NAME."
)
USER_CHANGED = EventKind(602, Severity.INFORMATIONAL)
LOGIN_FAILED = EventKind(
    603, Severity.WARNING, "- Find out who tried, from the address in the message.", Source.STRANGER
)
LOGINS_LIMITED = EventKind(
    606,
    Severity.WARNING,
    "- Someone is guessing passwords. Find out who, and block them from the ports of this system.",
    Source.STRANGER,
)
INITIATOR_CERTIFICATE_ISSUED = EventKind(607, Severity.INFORMATIONAL)
INITIATOR_CERTIFICATE_REVOKED = EventKind(608, Severity.INFORMATIONAL)
CERTIFICATE_ENDS = EventKind(609, Severity.WARNING, "- Replace the certificate before it expires, as the message says.")
SETTING_CHANGED = EventKind(604, Severity.INFORMATIONAL)
VOLUME_CREATED = EventKind(610, Severity.INFORMATIONAL)
VOLUME_CHANGED = EventKind(611, Severity.INFORMATIONAL)
VOLUME_DELETED = EventKind(612, Severity.INFORMATIONAL)
MAP_CHANGED = EventKind(613, Severity.INFORMATIONAL)
VOLUME_GROUP_CREATED = EventKind(614, Severity.INFORMATIONAL)
VOLUME_GROUP_CHANGED = EventKind(615, Severity.INFORMATIONAL)
VOLUME_GROUP_DELETED = EventKind(616, Severity.INFORMATIONAL)
POOL_CREATED = EventKind(620, Severity.INFORMATIONAL)
POOL_CHANGED = EventKind(621, Severity.INFORMATIONAL)
POOL_DELETED = EventKind(622, Severity.INFORMATIONAL)
TASK_CREATED = EventKind(630, Severity.INFORMATIONAL)
TASK_CHANGED = EventKind(631, Severity.INFORMATIONAL)
TASK_DELETED = EventKind(632, Severity.INFORMATIONAL)
SCHEDULE_CREATED = EventKind(633, Severity.INFORMATIONAL)
SCHEDULE_CHANGED = EventKind(634, Severity.INFORMATIONAL)
SCHEDULE_DELETED = EventKind(635, Severity.INFORMATIONAL)
SCHEDULE_EXPIRED = EventKind(636, Severity.INFORMATIONAL, "- To use the schedule again, set a new specification.")
TASK_STARTED = EventKind(637, Severity.INFORMATIONAL)
TASK_FAILED = EventKind(638, Severity.ERROR, "- Read the error and correct its cause. The schedule stays active.")
START_MISSED = EventKind(
    639, Severity.WARNING, "- Find out whether the system was down or busy, or its clock was set forward."
)
NOTICE_CHANGED = EventKind(640, Severity.INFORMATIONAL)
NOTICE_FAILED = EventKind(
    641, Severity.WARNING, "- Correct the cause in the message, then check with `test notice` that notices arrive."
)
NOTICE_DELIVERED = EventKind(642, Severity.RESOLVED)
SNAPSHOT_KEPT = EventKind(
    660,
    Severity.WARNING,
    "- To let it be deleted, unmap it or remove what else needs it, as the message says. To keep it, do nothing.",
)
HISTORY_NAME_IN_USE = EventKind(
    661,
    Severity.WARNING,
    "- Rename or delete the object that has the name, or change the snapshot-basename of the set.",
)
DIGESTS_DIFFER = EventKind(
    662,
    Severity.ERROR,
    "- Check the memory and disks of both systems. Abort the run: the set is then diverged, and resolve "
    "replication-set use primary keeps the secondary's data as a snapshot there and sends everything.",
)
HISTORY_LOWERED = EventKind(
    663,
    Severity.WARNING,
    "- If no administrator of the primary did this, set minimum-snapshot-count of the set here.",
)
STORED_DATA_CHANGED = EventKind(
    664, Severity.ERROR, "- Check the disk and memory of this system. The data is sent again."
)
CONNECTIONS_REFUSED = EventKind(
    670,
    Severity.WARNING,
    "- Find out who opens the connections, from the address in the message. If they are yours, raise the "
    "setting for the maximum number of connections.",
)
PEER_SET_REFUSED = EventKind(
    680,
    Severity.WARNING,
    "- To allow that system to create secondaries here: set peer-connection secondary-sets enabled.",
)
PEER_LIMIT_REACHED = EventKind(
    681,
    Severity.WARNING,
    "- Delete snapshots or volumes that the peer has left here, or raise the limit in the message.",
)
