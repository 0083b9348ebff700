"""What is asked of whoever sits at the terminal: passwords, and whether to go on."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable, Mapping, Sequence

from offsite.errors import BadParameter, OffsiteError, ProtocolError
from offsite.escaping import escaped, escaped_lines
from offsite.management.command_table.command import Parameter
from offsite.management.command_table.reply import Question, Reply
from offsite.return_codes import ReturnCode


class Declined(OffsiteError):
    """The answer to a question was no."""

    code = ReturnCode.DECLINED


class Conversation:
    """A command, the questions that the system has about it, and the answers of whoever sits here."""

    def __init__(
        self,
        send: Callable[..., Reply | Question],
        *,
        asks: bool,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._send = send
        self._asks = asks
        self._environment = environment

    def command(self, words: Sequence[str]) -> Reply:
        """Raises Declined when a question was answered with no."""
        typed, asks, secrets = tuple(words), self._asks, dict[str, str]()
        while isinstance(answer := self._send(words, secrets, asks=asks), Question):
            if answer.secret in secrets:
                raise ProtocolError(f"the system asked for {escaped(answer.secret)} twice; nothing was sent again")
            if answer.secret:
                secrets[answer.secret] = self._secret(typed, answer)
            elif not asks or not yes_or_no(answer.text):
                raise Declined("answered with no; nothing was changed")
            else:
                words, asks = [*words, *answer.adds], False
        return answer

    def _secret(self, typed: Sequence[str], question: Question) -> str:
        """`typed` are the words as they were typed: a system that asks can have words of its own added to them."""
        parameter = needed_secret(typed, question.secret)
        if parameter is None:
            raise ProtocolError(
                f"the system asks for {escaped(question.secret)[:64]!r}, a secret that this command does not need; "
                "nothing was sent"
            )
        return secret(escaped_lines(question.text), parameter.environment, self._environment, new=question.new)


def needed_secret(typed: Sequence[str], name: str) -> Parameter | None:
    """The secret of this name that the command needs: by what this program knows of the command, and not by what the
    system says, which could name any secret and any variable of the environment."""
    from offsite.interfaces.cli import declared
    from offsite.management.command_table.parser import UsageError, assign, find

    try:
        command, rest = find(declared.commands(), typed)
        given = {each.name for each in assign(command, rest)}
    except UsageError:
        return None
    secrets = (each for each in command.parameters if each.is_secret and each.name == name)
    return next((each for each in secrets if each.needs is None or each.needs.parameter in given), None)


def secret(text: str, variable: str, environment: Mapping[str, str], *, new: bool = False) -> str:
    """A password: from the environment, or asked for without showing it; a new one twice."""
    if variable in environment:
        return environment[variable]
    if not is_terminal():
        raise BadParameter(f"{text} It is required, and there is no terminal to ask for it; set {variable}")
    found = getpass.getpass(f"{text} Password: ")
    if new and getpass.getpass("Repeat the password: ") != found:
        raise BadParameter("the two passwords differ; nothing was changed")
    return found


def yes_or_no(text: str) -> bool:
    print(escaped_lines(text), file=sys.stderr)
    return input("Continue? (yes/no) ").strip().lower() in ("y", "yes")


def is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()
