"""From words that came from outside to an answer: parse, check the role, ask what is to be asked, see whether it is
accepted now, do it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from offsite.errors import BadParameter, NotAllowed
from offsite.events import Source, acting_for
from offsite.management import acceptance
from offsite.management.accounts.users import User
from offsite.management.command_table.command import Command
from offsite.management.command_table.parser import Call, goes_with, parse
from offsite.management.command_table.reply import Question, Reply
from offsite.management.commands import TABLE
from offsite.management.system import Context, System

WORDS_MAX = 256
WORD_CHARACTERS_MAX = 65536


@dataclass(frozen=True, slots=True)
class Request:
    """A command as it came in.

    `asks` when someone is there who can answer a question; `open_secrets` when secrets may stand among the
    words, which is so where nobody else can see those.
    """

    words: Sequence[str]
    secrets: Mapping[str, str] = field(default_factory=dict)
    asks: bool = False
    open_secrets: bool = False


def execute(system: System, request: Request, user: User) -> Reply | Question:
    """Does what `request` says, as `user`. Raises OffsiteError, with nothing changed; UserChanged if they were."""
    if len(request.words) > WORDS_MAX or any(len(word) > WORD_CHARACTERS_MAX for word in request.words):
        raise BadParameter(
            f"the command is too long; at most {WORDS_MAX} words of {WORD_CHARACTERS_MAX} characters are allowed"
        )
    user = system.users.current(user)  # whoever was let in may have taken half a minute to send the words
    call = parse(TABLE, request.words)
    acceptance.check_role(call.command, user)
    _check_secrets(call, request)
    question = _secret_to_ask(call, request)
    if question is not None:
        return question
    arguments = {**call.arguments, **_secrets(call, request)}
    context = Context(system, user)
    question = _confirmation_to_ask(call, request, context, arguments)
    if question is not None:
        return question
    return _run(call.command, context, arguments)


def _check_secrets(call: Call, request: Request) -> None:
    if call.secrets and not request.open_secrets:
        name = min(call.secrets)
        raise NotAllowed(
            f"{name} is not accepted among the words of a command, where others could see it; omit it, and it will be "
            "prompted for"
        )


def _secret_to_ask(call: Call, request: Request) -> Question | None:
    for parameter in call.command.parameters:
        given = parameter.name in call.secrets or parameter.name in request.secrets
        if parameter.is_secret and parameter.required and goes_with(parameter, call.arguments) and not given:
            return Question(parameter.help, parameter.name, parameter.new)
    return None


def _secrets(call: Call, request: Request) -> dict[str, str]:
    """What was given apart from the words, for the parameters that the command has."""
    return {
        parameter.argument: request.secrets[parameter.name]
        for parameter in call.command.parameters
        if parameter.is_secret and parameter.name in request.secrets
    }


def _confirmation_to_ask(
    call: Call, request: Request, context: Context, arguments: Mapping[str, Any]
) -> Question | None:
    if call.command.confirmation is None or call.prompt == "yes" or not (request.asks or call.prompt):
        return None
    acceptance.check(call.command, context, arguments)
    asked = call.command.confirmation(context, **arguments)
    if asked is None:
        return None
    question = Question(asked) if isinstance(asked, str) else asked
    if call.prompt == "no":
        raise NotAllowed(f"{question.text} It was answered with no; nothing was changed")
    return question


def _run(command: Command, context: Context, arguments: Mapping[str, Any]) -> Reply:
    context.system.check_stopping()
    with acting_for(Source.OPERATOR):
        return _run_now(command, context, arguments)


def _run_now(command: Command, context: Context, arguments: Mapping[str, Any]) -> Reply:
    if not command.alone:
        return _do(command, context, arguments)
    with context.system.changing_alone():
        context.system.users.current(context.user)  # it may have waited long for its turn
        return _do(command, context, arguments)


def _do(command: Command, context: Context, arguments: Mapping[str, Any]) -> Reply:
    acceptance.check(command, context, arguments)
    return command.handler(context, **arguments)
