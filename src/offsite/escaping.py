"""Text from outside, as it may be shown: on terminals, in logs, in events, in mail.

A control character could move the cursor, colour or hide text, or begin a line that looks like another entry; one that
turns the direction of writing shows a name as something else. So whatever cannot be printed is written as its escape
(`\\x1b`, `\\u202e`), in the one place where something is shown, whoever let it in.
"""

from __future__ import annotations


def escaped(text: str, *, keep: str = "") -> str:
    """`text` in one line, with nothing in it that cannot be printed but the characters of `keep`."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in keep else repr(each)[1:-1] for each in text)


def escaped_lines(text: str) -> str:
    """The same of text that may have several lines."""
    return escaped(text, keep="\n")


SHOWN_CHARACTERS = 100


def shown(text: str) -> str:
    """A value from outside, quoted, as it stands in a sentence: never longer than what a person reads."""
    return repr(text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…")
