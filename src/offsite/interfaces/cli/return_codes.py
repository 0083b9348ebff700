"""docs/return-codes.md: every return code and what it means, from the errors. Made by `make docs`, never by hand."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module

import offsite
from offsite.errors import OffsiteError
from offsite.interfaces.cli.exit_status import status_of
from offsite.return_codes import OWN, ReturnCode

_HEAD = """# Return codes

The return codes of failed commands, for programs: `--json` shows them as `return-code`, the API as `code`, with the
class of the error. A code has one meaning, which does not change. `make docs` generates this page from the errors.

The class says what to do next. *try again*: the same command can succeed later. *operator must act*: it succeeds once
someone has corrected what the message names. *never*: it will be refused again. The last column is the exit status of
the command line.
"""


def declared() -> dict[int, list[type[OffsiteError]]]:
    """The errors by the code that each declares; an error that declares none has that of the error it is a kind of."""
    for module in pkgutil.walk_packages(offsite.__path__, "offsite."):
        if not module.name.endswith("__main__") and ".migrations" not in module.name:  # these run when imported
            import_module(module.name)
    found: dict[int, list[type[OffsiteError]]] = {}
    for each in _kinds_of(OffsiteError):
        if "code" in vars(each):
            found.setdefault(each.code, []).append(each)
    return found


def _kinds_of(error: type[OffsiteError]) -> Iterator[type[OffsiteError]]:
    """It, and all that are kinds of it."""
    yield error
    for each in error.__subclasses__():
        yield from _kinds_of(each)


def page() -> str:
    """The page, in Markdown."""
    errors = {code: kinds[0] for code, kinds in declared().items()}
    mine = _table([code for code in ReturnCode if code in OWN], errors)
    theirs = _table([code for code in ReturnCode if code not in OWN], errors)
    return "\n".join([_HEAD, "## ME4's\n", theirs, f"## Offsite's own, {OWN[-1]} to {OWN[0]}\n", mine])


def _table(codes: Iterable[ReturnCode], errors: Mapping[int, type[OffsiteError]]) -> str:
    rows = [_row(code, errors[code]) for code in sorted(codes, reverse=True)]
    return "| code | error | meaning | class | exit status |\n|---|---|---|---|---|\n" + "".join(rows)


def _row(code: ReturnCode, error: type[OffsiteError]) -> str:
    meaning = " ".join((error.__doc__ or "").split())
    return f"| {code} | {error.__name__} | {meaning} | {error.error_class.value} | {status_of(error)} |\n"


if __name__ == "__main__":
    print(page(), end="")
