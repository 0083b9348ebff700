"""Whether a command would be accepted for an object as it is now, and why not, without doing it.

Each rule is in one place: the `acceptance` of a command. It is checked before the command is done, and when somebody
only asks. Rules about further parameters are checked as far as those are given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from offsite.errors import BadParameter, InitiatorNotFound, NotAllowed, OffsiteError
from offsite.escaping import shown
from offsite.management.accounts.users import User
from offsite.management.command_table.command import Command, Parameter
from offsite.management.command_table.value_parser import parse
from offsite.management.system import Context, System


def check_role(command: Command, user: User) -> None:
    """Raises NotAllowed."""
    assert command.role is not None, "a system is asked for it"
    if user.role < command.role:
        raise NotAllowed(
            f"`{command.text}` requires the role {command.role.word}; user {user.name} has the role {user.role.word}"
        )


def check(command: Command, context: Context, arguments: Mapping[str, Any]) -> None:
    """Raises what the objects among `arguments` are refused with as they are now."""
    if command.acceptance is not None:
        command.acceptance(context, **arguments)


def would_accept(
    system: System, user: User, command: Command, target: Parameter, names: Sequence[str]
) -> OffsiteError | None:
    """What the command would refuse the objects of these names with, which `target` takes; None: nothing."""
    try:
        check_role(command, user)
        check(command, Context(system, user), {target.argument: _argument(command, target, names)})
    except OffsiteError as error:
        return error
    return None


def accepted_commands(
    commands: Iterable[Command], system: System, user: User, kind: str, names: Sequence[str]
) -> list[tuple[Command, Parameter, OffsiteError | None]]:
    """All of these commands that act on objects of a kind, the parameter that names them, and what these objects, all
    together, would be refused with. Raises what an object is refused with that is not there."""
    for each in names:
        FINDERS[kind](system, each)
    return [
        (command, target, would_accept(system, user, command, target, names))
        for command in commands
        for target in targets_of_kind(command, kind)
    ]


def targets_of_kind(command: Command, kind: str) -> list[Parameter]:
    return [each for each in command.targets if each.type is not None and kind in each.type.objects]


def _argument(command: Command, target: Parameter, names: Sequence[str]) -> Any:
    """Raises BadParameter for more objects than the command takes."""
    assert target.type is not None
    if len(names) > 1 and not target.type.list_max:
        raise BadParameter(f"`{command.text}` takes one {target.type.noun} at a time; {len(names)} are given")
    return parse(target.type, ",".join(names))


def _find_initiator(system: System, name: str) -> None:
    if not any(name in (each.id, each.nickname) for each in system.maps.initiators()):
        raise InitiatorNotFound(f"initiator {shown(name)} does not exist; `show initiators` lists those there are")


FINDERS: Mapping[str, Callable[[System, str], object]] = {
    "volume": lambda system, name: system.base_volume(name),
    "snapshot": lambda system, name: system.snapshot(name),
    "volume group": lambda system, name: system.groups.get(name),
    "pool": lambda system, name: system.pool(name),
    "user": lambda system, name: system.users.get(name),
    "initiator": _find_initiator,
    "nickname": _find_initiator,
    "certificate serial": lambda system, name: system.certificates.get(name.lower()),
    "peer connection": lambda system, name: system.replication.peers.record(name),
    "replication set": lambda system, name: system.replication.sets.record(name),
    "task": lambda system, name: system.tasks.get(name),
    "schedule": lambda system, name: system.schedules.get(name),
    "notice": lambda system, name: system.notices.get(name),
}
"""How an object of a kind is found: raises what tells that there is none of that name."""
