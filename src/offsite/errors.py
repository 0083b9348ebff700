"""Errors as a part of the interface.

Each refusal carries three things besides its sentence: a stable return code (ME4's where it has one), and
a class that tells a program what to do next: try again, call an operator, or never ask this again.
The sentence names the value, the rule it broke, and what would be right; nothing was changed.
"""

from __future__ import annotations

from enum import Enum


class ErrorClass(Enum):
    """What whoever got the error should do next."""

    TRANSIENT = "try again"
    OPERATOR = "operator must act"
    PERMANENT = "never"


class OffsiteError(Exception):
    """Base of every error that Offsite raises on purpose. `str(error)` is fit to be shown to a user."""

    code = -1
    error_class = ErrorClass.PERMANENT


class BadParameter(OffsiteError):
    """A value outside its rule: a name, a size, an unknown word."""

    code = -10058


class NameInUse(OffsiteError):
    code = -10186


class VolumeNotFound(OffsiteError):
    code = -10075


class SnapshotNotFound(OffsiteError):
    code = -10050


class ObjectNotFound(OffsiteError):
    """A pool, peer connection, replication set, user, host or initiator that is not there."""

    code = -10058


class InitiatorNotFound(ObjectNotFound):
    """Neither the nickname nor the id of an initiator."""

    code = -10386


class MapNotFound(ObjectNotFound):
    """A volume that is not mapped to the initiator that is named."""

    code = -10074


class InUse(OffsiteError):
    """What is to be changed or deleted is needed by something else, which the sentence names."""

    code = -3442
    error_class = ErrorClass.OPERATOR


class NotAllowed(OffsiteError):
    """The role of the user, the state of the object or a mapping forbids it."""

    code = -10007
    error_class = ErrorClass.OPERATOR


class AuthenticationFailed(OffsiteError):
    code = 2
    error_class = ErrorClass.OPERATOR


class PoolFull(OffsiteError):
    """No free page is left (or the file system under the pool is full): the write got ENOSPC."""

    code = -20001
    error_class = ErrorClass.OPERATOR


class PoolFailed(OffsiteError):
    """The disk under the pool failed a sync. What is in memory can no longer be trusted to reach it."""

    code = -20002
    error_class = ErrorClass.OPERATOR


RESTORE_WHOLE = "restore the whole state directory from one copy, never a single file of it"


class StateDirectoryError(OffsiteError):
    """The state directory is damaged, foreign, or in use by another process. It was left untouched."""

    code = -20003
    error_class = ErrorClass.OPERATOR


class DoNotBelongTogether(StateDirectoryError):
    """A data file or the log of the database that is of another time, or of another system, than the database."""

    code = -20030


class DeviceNotEmpty(OffsiteError):
    """Something is on the block device that a pool was to be made on."""

    code = -20031
    error_class = ErrorClass.OPERATOR


class StateDirectoryFull(StateDirectoryError):
    """The file system of the state directory is full, and so nothing can be committed."""

    code = -20032


class PeerUnreachable(OffsiteError):
    code = -20010
    error_class = ErrorClass.TRANSIENT


class PeerRefused(OffsiteError):
    """The remote system said no; its own sentence is part of ours."""

    code = -20011
    error_class = ErrorClass.OPERATOR


class CertificateChanged(OffsiteError):
    """The remote system showed another certificate than the one pinned for it."""

    code = -20012
    error_class = ErrorClass.OPERATOR


class IncarnationRefused(OffsiteError):
    """One of two systems that are peers is an older or a second copy of the one that the other side has met."""

    code = -20017
    error_class = ErrorClass.OPERATOR


class ProtocolError(OffsiteError):
    """Bytes from outside that are not of the protocol: the connection is closed."""

    code = -20013


class SetDiverged(OffsiteError):
    """The secondary of a set holds a copy that its primary has never had. An operator has to decide."""

    code = -20015
    error_class = ErrorClass.OPERATOR


class NotReplaced(OffsiteError):
    """The secondary holds a complete copy, and the primary did not say that it knows which one it would replace."""

    code = -20016
    error_class = ErrorClass.OPERATOR


class SecondarySetsDisabled(NotAllowed):
    """The peer connection over there does not let this system make replication sets there."""

    code = -20070


class PeerLimitReached(OffsiteError):
    """A peer has all the volumes, snapshots or space that it may have."""

    code = -20071
    error_class = ErrorClass.OPERATOR


class DigestMismatch(OffsiteError):
    """What is stored on the secondary is not what the primary sent. The run does not count."""

    code = -20014
    error_class = ErrorClass.TRANSIENT


class DigestsDiffer(OffsiteError):
    """The secondary says that it has committed something else than what was sent. Its copy does not count."""

    code = -20024
    error_class = ErrorClass.OPERATOR


class NoPlace(OffsiteError):
    """There are too many connections. Later there may be fewer."""

    code = -20050
    error_class = ErrorClass.TRANSIENT
