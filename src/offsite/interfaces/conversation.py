"""What is asked of whoever sits at the terminal: passwords, and whether to go on."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable, Mapping, Sequence

from offsite.errors import BadParameter, OffsiteError
from offsite.management.reply import Question, Reply


class Declined(OffsiteError):
    """The answer to a question was no."""


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
        asks, secrets = self._asks, dict[str, str]()
        while isinstance(answer := self._send(words, secrets, asks=asks), Question):
            if answer.secret in secrets:
                raise OffsiteError(f"the system asks for {answer.secret} again and again")
            if answer.secret:
                secrets[answer.secret] = secret(answer.text, answer.environment, self._environment, new=answer.new)
            elif not asks or not _yes(answer.text):
                raise Declined("answered with no; nothing was changed")
            else:
                asks = False
        return answer


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


def _yes(text: str) -> bool:
    print(text, file=sys.stderr)
    return input("Go on? (yes/no) ").strip().lower() in ("y", "yes")


def is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()
