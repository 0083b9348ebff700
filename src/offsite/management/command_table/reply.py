"""What a command answers: a neutral structure that every face shows in its own way."""

from __future__ import annotations

from dataclasses import dataclass

from offsite.management.command_table.object_types import Row


@dataclass(frozen=True, slots=True)
class Reply:
    """A command that was done: a sentence for people, and the objects that it is about."""

    message: str = ""
    rows: tuple[Row, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be answered before a command is done. Nothing was changed yet.

    With a `secret`, the answer is the value of that parameter, which has no place among arguments that others
    can see; `new` says that it is being chosen just now, so that it is asked twice. Which variable of the
    environment may hold it is for the face to know, and never for the system that asks: it could name any.
    Without a secret, the answer is yes or no; with yes, the words `adds` join those of the command, so that what is
    done is what was shown.
    """

    text: str
    secret: str = ""
    new: bool = False
    adds: tuple[str, ...] = ()
