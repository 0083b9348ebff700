"""Actions: which commands act on an object, which would be accepted now, and why the others would not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from offsite.errors import BadParameter, OffsiteError
from offsite.management.acceptance import accepted_commands
from offsite.management.command_table import properties, values
from offsite.management.command_table.command import Command, Parameter, Role, Subject, keyword
from offsite.management.command_table.object_types import ObjectType
from offsite.management.command_table.reply import Reply
from offsite.management.system import Context


@dataclass(frozen=True, slots=True)
class ActionView:
    command: Command
    target: Parameter
    refusal: OffsiteError | None


ACTION = ObjectType[ActionView](
    "actions",
    "action",
    (
        properties.text("command", lambda view: view.command.text, "Command"),
        properties.text("parameter", lambda view: view.target.name, "As"),  # which takes the objects
        properties.yes_no("accepted", lambda view: view.refusal is None, "Accepted"),
        properties.text("reason", lambda view: "" if view.refusal is None else str(view.refusal), "Why not"),
        properties.number("return-code", lambda view: 0 if view.refusal is None else view.refusal.code),
    ),
)


def subject_of(commands: Sequence[Command]) -> Subject:
    """The command that tells about all of these."""
    subject = Subject("Actions")
    kinds = {each.replace(" ", "-"): each for each in _kinds(commands)}

    @subject.command(
        "show actions",
        "Lists the commands that act on one object or several, whether each would be accepted now, and if not, why. "
        "Changes nothing.",
        *(keyword(word, values.references(kind), f"Names of one {kind} or several.") for word, kind in kinds.items()),
        role=Role.MONITOR,
        examples=("show actions volume Sales", "show actions replication-set SalesDR,BooksDR"),
        returns=(ACTION,),
    )
    def show_actions(context: Context, **given: tuple[str, ...]) -> Reply:
        if len(given) != 1:
            raise BadParameter("specify objects of one kind, for example: show actions volume Sales")
        ((argument, names),) = given.items()
        kind = kinds[argument.replace("_", "-")]
        found = accepted_commands(commands, context.system, context.user, kind, names)
        return Reply(rows=tuple(ACTION.row(ActionView(*each)) for each in found))

    return subject


def _kinds(commands: Sequence[Command]) -> list[str]:
    """What commands act on, in the order in which they are declared."""
    types = [target.type for command in commands for target in command.targets]
    return list(dict.fromkeys(kind for type in types if type is not None for kind in type.objects))
