"""What is asked of whoever sits at the terminal: passwords, and whether to go on."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable, Mapping, Sequence

from offsite.errors import BadParameter, OffsiteError, ProtocolError
from offsite.escaping import escaped, escaped_lines
from offsite.interfaces.cli.options import CommandLine
from offsite.management.command_table.command import singular
from offsite.management.command_table.reply import Question, Reply
from offsite.return_codes import ReturnCode


class Declined(OffsiteError):
    """The answer to a question was no."""

    code = ReturnCode.DECLINED


VARIABLES = {
    "password": "OFFSITE_NEW_PASSWORD",
    "remote-password": "OFFSITE_REMOTE_PASSWORD",
    "url": "OFFSITE_NOTICE_URL",
}
"""Where each secret may come from. Fixed here, and not by the system that asks: it could name any variable."""

ASKED_BY = {
    "password": ("create user", "set password"),
    "remote-password": ("create peer-connection", "set peer-connection"),
    "url": ("create notice",),
}
"""The commands that need it: a system that asks for a password of another command is not what it should be."""

NEEDED_WITH = {("set peer-connection", "remote-password"): "remote-username"}
"""Commands that need a secret only when this keyword is among their words."""


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
        given, asks, secrets = CommandLine(tuple(words), {}), self._asks, dict[str, str]()
        while isinstance(answer := self._send(words, secrets, asks=asks), Question):
            if answer.secret in secrets:
                raise ProtocolError(f"the system asks for {escaped(answer.secret)} again and again")
            if answer.secret:
                secrets[answer.secret] = self._secret(given, answer)
            elif not asks or not yes_or_no(answer.text):
                raise Declined("answered with no; nothing was changed")
            else:
                words, asks = [*words, *answer.adds], False
        return answer

    def _secret(self, given: CommandLine, question: Question) -> str:
        """`given` are the words as they were typed: a system that asks can have words of its own added to them."""
        if not any(_needs(given, each, question.secret) for each in ASKED_BY.get(question.secret, ())):
            raise ProtocolError(
                f"the system asks for {escaped(question.secret)[:64]!r}, a secret that this command does not need; "
                "nothing was sent"
            )
        return secret(escaped_lines(question.text), VARIABLES[question.secret], self._environment, new=question.new)


def _needs(given: CommandLine, command: str, secret: str) -> bool:
    keyword = NEEDED_WITH.get((command, secret))
    typed = {singular(word) for word in given.words[len(command.split()) :]}
    return given.begins_with(command) and (keyword is None or keyword in typed)


def secret(text: str, variable: str, environment: Mapping[str, str], *, new: bool = False) -> str:
    """A password: from the environment, or asked for without showing it; a new one twice."""
    if variable in environment:
        return environment[variable]
    if not is_terminal():
        raise BadParameter(f"{text} It is not asked for where there is no terminal; set {variable}")
    found = getpass.getpass(f"{text} Password: ")
    if new and getpass.getpass("The same again: ") != found:
        raise BadParameter("the two passwords differ; nothing was changed")
    return found


def yes_or_no(text: str) -> bool:
    print(escaped_lines(text), file=sys.stderr)
    return input("Go on? (yes/no) ").strip().lower() in ("y", "yes")


def is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()
