"""Errors that cross the wire: told by one system as Failed, raised again by the other."""

from __future__ import annotations

from offsite import errors
from offsite.replication.wire.messages import Failed


class NotPaired(errors.PeerRefused):
    """The other system does not know us (any more)."""


_SENTENCE_MAX = 4096
_KNOWN = {
    kind.__name__: kind
    for kind in (
        NotPaired,
        errors.AuthenticationFailed,
        errors.BadParameter,
        errors.CertificateChanged,
        errors.DigestMismatch,
        errors.NotReplaced,
        errors.ImageNeeded,
        errors.IncarnationRefused,
        errors.InUse,
        errors.LimitReached,
        errors.NameInUse,
        errors.NoPlace,
        errors.NotAllowed,
        errors.ObjectNotFound,
        errors.PeerLimitReached,
        errors.PoolFailed,
        errors.PoolFull,
        errors.SecondarySetsDisabled,
        errors.SnapshotNotFound,
        errors.VolumeNotFound,
    )
}


def to_message(error: errors.OffsiteError) -> Failed:
    return Failed(error=type(error).__name__, sentence=str(error)[:_SENTENCE_MAX])


def to_error(failed: Failed, remote: str) -> errors.OffsiteError:
    """The same kind of error, whose sentence begins with the name of the system that told it.

    A kind that this version does not know, or that only means something where it was raised, is PeerRefused.
    """
    kind = _KNOWN.get(failed.error, errors.PeerRefused)
    return kind(f"{remote}: {failed.sentence}")
