"""Errors as a part of the interface.

Each refusal carries two things besides its sentence: a stable return code (see `offsite.return_codes`), and
a class that tells a program what to do next: try again, call an operator, or never ask this again.
The sentence names the value, the rule it broke, and what would be right; nothing was changed.
"""

from __future__ import annotations

from enum import Enum

from offsite.return_codes import ReturnCode


class ErrorClass(Enum):
    """What to do next after the error."""

    TRANSIENT = "try again"
    OPERATOR = "operator must act"
    PERMANENT = "never"


class OffsiteError(Exception):
    """Any other error, or a defect of Offsite."""

    # The base of every error that Offsite raises on purpose. `str(error)` is fit to be shown to a user.

    code: int = ReturnCode.OFFSITE_ERROR
    error_class = ErrorClass.PERMANENT


class BadParameter(OffsiteError):
    """An invalid value: a name, a size, an unknown word."""

    code = ReturnCode.BAD_PARAMETER


class NameInUse(OffsiteError):
    """The name is already in use."""

    code = ReturnCode.NAME_IN_USE


class VolumeNotFound(OffsiteError):
    """The volume does not exist."""

    code = ReturnCode.VOLUME_NOT_FOUND


class SnapshotNotFound(OffsiteError):
    """The snapshot does not exist, or is a volume."""

    code = ReturnCode.SNAPSHOT_NOT_FOUND


class ObjectNotFound(OffsiteError):
    """The pool, volume group, peer connection, replication set, task, schedule, user or notice does not exist."""

    code = ReturnCode.OBJECT_NOT_FOUND


class InitiatorNotFound(ObjectNotFound):
    """The initiator does not exist: the value is neither a nickname nor an id."""

    code = ReturnCode.INITIATOR_NOT_FOUND


class MapNotFound(ObjectNotFound):
    """The volume is not mapped to the initiator."""

    code = ReturnCode.MAP_NOT_FOUND


class InUse(OffsiteError):
    """The object is in use by another object, which the message names."""

    code = ReturnCode.IN_USE
    error_class = ErrorClass.OPERATOR


class ImageNeeded(InUse):
    """The volume or snapshot cannot be deleted: another object, which the message names, uses it."""

    code = ReturnCode.IMAGE_NEEDED


class LunInUse(InUse):
    """The initiator uses the LUN for another volume."""

    code = ReturnCode.LUN_IN_USE


class LimitReached(InUse):
    """The maximum number of these objects exists."""

    code = ReturnCode.LIMIT_REACHED


class Busy(InUse):
    """The maximum number of these operations is active. Later there may be fewer."""

    code = ReturnCode.BUSY
    error_class = ErrorClass.TRANSIENT


class NotAllowed(OffsiteError):
    """The role of the user, the state of the object or a map does not allow the command."""

    code = ReturnCode.NOT_ALLOWED
    error_class = ErrorClass.OPERATOR


class AuthenticationFailed(OffsiteError):
    """The user name or password is wrong."""

    code = ReturnCode.AUTHENTICATION_FAILED
    error_class = ErrorClass.OPERATOR


class PoolFull(OffsiteError):
    """The pool or its file system is full: the write failed with ENOSPC."""

    code = ReturnCode.POOL_FULL
    error_class = ErrorClass.OPERATOR


class PoolFailed(OffsiteError):
    """The disk of the pool failed to store data. The pool stops accepting writes."""

    code = ReturnCode.POOL_FAILED
    error_class = ErrorClass.OPERATOR


RESTORE_WHOLE = "restore the whole state directory from one copy, not single files"


class StateDirectoryError(OffsiteError):
    """The state directory is damaged, invalid, or in use by another process. It was not changed."""

    code = ReturnCode.STATE_DIRECTORY_ERROR
    error_class = ErrorClass.OPERATOR


class DoNotBelongTogether(StateDirectoryError):
    """A data file or the log of the database comes from another time or another system than the database."""

    code = ReturnCode.DO_NOT_BELONG_TOGETHER


class DeviceNotEmpty(OffsiteError):
    """The block device for a new pool is not empty."""

    code = ReturnCode.DEVICE_NOT_EMPTY
    error_class = ErrorClass.OPERATOR


class StateDirectoryFull(StateDirectoryError):
    """The file system of the state directory is full. Nothing can be stored."""

    code = ReturnCode.STATE_DIRECTORY_FULL


class PeerUnreachable(OffsiteError):
    """The remote system does not answer."""

    code = ReturnCode.PEER_UNREACHABLE
    error_class = ErrorClass.TRANSIENT


class PeerRefused(OffsiteError):
    """The remote system refused the request. Its message is part of this one."""

    code = ReturnCode.PEER_REFUSED
    error_class = ErrorClass.OPERATOR


class CertificateChanged(OffsiteError):
    """The certificate of the remote system differs from the remembered one."""

    code = ReturnCode.CERTIFICATE_CHANGED
    error_class = ErrorClass.OPERATOR


class IncarnationRefused(OffsiteError):
    """One of the two systems is an older or second copy of the one that its peer accepted."""

    code = ReturnCode.INCARNATION_REFUSED
    error_class = ErrorClass.OPERATOR


class ProtocolError(OffsiteError):
    """The other side violated the protocol. The connection was closed."""

    code = ReturnCode.PROTOCOL_ERROR


class SetDiverged(OffsiteError):
    """The secondary holds data that the primary never had. An operator has to decide which is kept."""

    code = ReturnCode.SET_DIVERGED
    error_class = ErrorClass.OPERATOR


class NotReplaced(OffsiteError):
    """The secondary holds a complete copy, and the primary did not name it as the one to replace."""

    code = ReturnCode.NOT_REPLACED
    error_class = ErrorClass.OPERATOR


class SecondarySetsDisabled(NotAllowed):
    """The peer connection on the other system does not allow this system to create replication sets there."""

    code = ReturnCode.SECONDARY_SETS_DISABLED


class PeerLimitReached(OffsiteError):
    """A peer has reached its limit of volumes, snapshots or space."""

    code = ReturnCode.PEER_LIMIT_REACHED
    error_class = ErrorClass.OPERATOR


class DigestMismatch(OffsiteError):
    """The data stored on the secondary differs from the data sent. The run failed."""

    code = ReturnCode.DIGEST_MISMATCH
    error_class = ErrorClass.TRANSIENT


class DigestsDiffer(OffsiteError):
    """The secondary reports that it has stored other data than was sent. Its copy is no recovery point."""

    code = ReturnCode.DIGESTS_DIFFER
    error_class = ErrorClass.OPERATOR


class NoPlace(OffsiteError):
    """The maximum number of connections is open. Later there may be fewer."""

    code = ReturnCode.NO_PLACE
    error_class = ErrorClass.TRANSIENT
