"""The status of a replication set, in ME4's words. No I/O here."""

from __future__ import annotations

from enum import Enum


class Status(Enum):
    NOT_READY = "Not Ready"  # its other half is not there, or may not be
    UNSYNCHRONIZED = "Unsynchronized"  # no run has ever succeeded
    DIVERGED = "Diverged"  # the secondary holds what the primary has never had: an operator has to decide
    RUNNING = "Running"
    READY = "Ready"
    SUSPENDED = "Suspended"  # by a user, or by itself since its run failed and waits to be tried again
    UNKNOWN = "Unknown"  # secondary, and its primary cannot be reached


def status_of(
    *, ready: bool, has_base: bool, running: bool, suspended: bool, primary_is_gone: bool, diverged: bool = False
) -> Status:
    if not ready:
        return Status.NOT_READY
    if primary_is_gone:
        return Status.UNKNOWN
    if diverged:
        return Status.DIVERGED
    if suspended:
        return Status.SUSPENDED
    if running:
        return Status.RUNNING
    return Status.READY if has_base else Status.UNSYNCHRONIZED
