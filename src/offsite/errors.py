"""Errors as a part of the interface.

Each refusal carries two things besides its sentence: a stable return code (see `offsite.return_codes`), and
a class that tells a program what to do next: try again, call an operator, or never ask this again.
The sentence names the value, the rule it broke, and what would be right; nothing was changed.
"""

from __future__ import annotations

from enum import Enum

from offsite.return_codes import ReturnCode


class ErrorClass(Enum):
    """What whoever got the error should do next."""

    TRANSIENT = "try again"
    OPERATOR = "operator must act"
    PERMANENT = "never"


class OffsiteError(Exception):
    """An error of no other kind, or a defect of Offsite."""

    # The base of every error that Offsite raises on purpose. `str(error)` is fit to be shown to a user.

    code: int = ReturnCode.OFFSITE_ERROR
    error_class = ErrorClass.PERMANENT


class BadParameter(OffsiteError):
    """A value outside its rule: a name, a size, an unknown word."""

    code = ReturnCode.BAD_PARAMETER


class NameInUse(OffsiteError):
    """A name that something else has."""

    code = ReturnCode.NAME_IN_USE


class VolumeNotFound(OffsiteError):
    """A volume that is not there."""

    code = ReturnCode.VOLUME_NOT_FOUND


class SnapshotNotFound(OffsiteError):
    """A snapshot that is not there, or a volume where a snapshot is wanted."""

    code = ReturnCode.SNAPSHOT_NOT_FOUND


class ObjectNotFound(OffsiteError):
    """A pool, volume group, peer connection, replication set, task, schedule, user or notice that is not there."""

    code = ReturnCode.OBJECT_NOT_FOUND


class InitiatorNotFound(ObjectNotFound):
    """Neither the nickname nor the id of an initiator."""

    code = ReturnCode.INITIATOR_NOT_FOUND


class MapNotFound(ObjectNotFound):
    """A volume that is not mapped to the initiator that is named."""

    code = ReturnCode.MAP_NOT_FOUND


class InUse(OffsiteError):
    """What is to be changed or deleted is needed by something else, which the sentence names."""

    code = ReturnCode.IN_USE
    error_class = ErrorClass.OPERATOR


class ImageNeeded(InUse):
    """A volume or snapshot that is to be deleted is needed by something else, which the sentence names."""

    code = ReturnCode.IMAGE_NEEDED


class LunInUse(InUse):
    """The LUN is another volume's at that initiator."""

    code = ReturnCode.LUN_IN_USE


class LimitReached(InUse):
    """There are as many of these as there may be."""

    code = ReturnCode.LIMIT_REACHED


class Busy(InUse):
    """As much is being done as can be done at a time. Later there is less."""

    code = ReturnCode.BUSY
    error_class = ErrorClass.TRANSIENT


class NotAllowed(OffsiteError):
    """The role of the user, the state of the object or a mapping forbids it."""

    code = ReturnCode.NOT_ALLOWED
    error_class = ErrorClass.OPERATOR


class AuthenticationFailed(OffsiteError):
    """A wrong user name or password."""

    code = ReturnCode.AUTHENTICATION_FAILED
    error_class = ErrorClass.OPERATOR


class PoolFull(OffsiteError):
    """No free page is left (or the file system under the pool is full): the write got ENOSPC."""

    code = ReturnCode.POOL_FULL
    error_class = ErrorClass.OPERATOR


class PoolFailed(OffsiteError):
    """The disk under the pool failed a sync. What is in memory can no longer be trusted to reach it."""

    code = ReturnCode.POOL_FAILED
    error_class = ErrorClass.OPERATOR


RESTORE_WHOLE = "restore the whole state directory from one copy, not single files"


class StateDirectoryError(OffsiteError):
    """The state directory is damaged, foreign, or in use by another process. It was left untouched."""

    code = ReturnCode.STATE_DIRECTORY_ERROR
    error_class = ErrorClass.OPERATOR


class DoNotBelongTogether(StateDirectoryError):
    """A data file or the log of the database that is of another time, or of another system, than the database."""

    code = ReturnCode.DO_NOT_BELONG_TOGETHER


class DeviceNotEmpty(OffsiteError):
    """Something is on the block device that a pool was to be made on."""

    code = ReturnCode.DEVICE_NOT_EMPTY
    error_class = ErrorClass.OPERATOR


class StateDirectoryFull(StateDirectoryError):
    """The file system of the state directory is full, and so nothing can be committed."""

    code = ReturnCode.STATE_DIRECTORY_FULL


class PeerUnreachable(OffsiteError):
    """The remote system does not answer."""

    code = ReturnCode.PEER_UNREACHABLE
    error_class = ErrorClass.TRANSIENT


class PeerRefused(OffsiteError):
    """The remote system said no; its own sentence is part of ours."""

    code = ReturnCode.PEER_REFUSED
    error_class = ErrorClass.OPERATOR


class CertificateChanged(OffsiteError):
    """The remote system showed another certificate than the one pinned for it."""

    code = ReturnCode.CERTIFICATE_CHANGED
    error_class = ErrorClass.OPERATOR


class IncarnationRefused(OffsiteError):
    """One of two systems that are peers is an older or a second copy of the one that the other side has met."""

    code = ReturnCode.INCARNATION_REFUSED
    error_class = ErrorClass.OPERATOR


class ProtocolError(OffsiteError):
    """Bytes from outside that are not of the protocol: the connection is closed."""

    code = ReturnCode.PROTOCOL_ERROR


class SetDiverged(OffsiteError):
    """The secondary of a set holds a copy that its primary has never had. An operator has to decide."""

    code = ReturnCode.SET_DIVERGED
    error_class = ErrorClass.OPERATOR


class NotReplaced(OffsiteError):
    """The secondary holds a complete copy, and the primary did not say that it knows which one it would replace."""

    code = ReturnCode.NOT_REPLACED
    error_class = ErrorClass.OPERATOR


class SecondarySetsDisabled(NotAllowed):
    """The peer connection over there does not let this system make replication sets there."""

    code = ReturnCode.SECONDARY_SETS_DISABLED


class PeerLimitReached(OffsiteError):
    """A peer has all the volumes, snapshots or space that it may have."""

    code = ReturnCode.PEER_LIMIT_REACHED
    error_class = ErrorClass.OPERATOR


class DigestMismatch(OffsiteError):
    """What is stored on the secondary is not what the primary sent. The run does not count."""

    code = ReturnCode.DIGEST_MISMATCH
    error_class = ErrorClass.TRANSIENT


class DigestsDiffer(OffsiteError):
    """The secondary says that it has committed something else than what was sent. Its copy does not count."""

    code = ReturnCode.DIGESTS_DIFFER
    error_class = ErrorClass.OPERATOR


class NoPlace(OffsiteError):
    """There are too many connections. Later there may be fewer."""

    code = ReturnCode.NO_PLACE
    error_class = ErrorClass.TRANSIENT
