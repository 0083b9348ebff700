"""What a command may answer: the objects and errors that its declaration says or implies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from offsite import errors
from offsite.errors import OffsiteError
from offsite.management.command_table.command import Command, Parameter
from offsite.management.command_table.reply import Reply
from offsite.management.command_table.values import ValueKind

OF_ANY_COMMAND: tuple[type[OffsiteError], ...] = (
    errors.BadParameter,
    errors.NotAllowed,  # the role, or a state of the object
    errors.InUse,  # also by another command
    errors.AuthenticationFailed,  # of a session that has ended, of a user who was changed
    errors.StateDirectoryError,
    errors.PoolFull,
    errors.PoolFailed,
)
PEER_ERRORS: tuple[type[OffsiteError], ...] = (
    errors.PeerUnreachable,
    errors.PeerRefused,
    errors.CertificateChanged,
    errors.IncarnationRefused,
    errors.ProtocolError,
)
"""Of a command that asks another system."""

_OF_OBJECTS: Mapping[str, type[OffsiteError]] = {
    "volume": errors.VolumeNotFound,
    "snapshot": errors.SnapshotNotFound,
    "initiator": errors.InitiatorNotFound,
}


def errors_of(command: Command) -> tuple[type[OffsiteError], ...]:
    """What `command` may refuse with, beside what any command may; each stands for its subclasses as well."""
    implied = (error for each in command.parameters for error in _implied(each))
    return tuple(dict.fromkeys((*implied, *command.own_errors)))


def _implied(parameter: Parameter) -> Iterator[type[OffsiteError]]:
    type = parameter.type
    if type is None:
        return
    if type.kind is ValueKind.NAME:
        yield errors.NameInUse
    for noun in type.objects:
        yield _OF_OBJECTS.get(noun, errors.ObjectNotFound)


def is_declared(command: Command, error: OffsiteError) -> bool:
    return isinstance(error, (*OF_ANY_COMMAND, *errors_of(command)))


def undeclared_objects(command: Command, reply: Reply) -> set[str]:
    """The types of objects in `reply` that the command does not say that it returns."""
    return {row.type.basetype for row in reply.rows if row.type not in command.returns}
