"""The codes of errors, by which programs tell one from another."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module

import offsite
from offsite.errors import OffsiteError

SHARED = {
    -10058: {"BadParameter", "ObjectNotFound"},  # ME4 has one code for both
    -10007: {"NotAllowed", "UsageError"},
}


def test_every_error_has_a_code_of_its_own() -> None:
    """But for those of ME4 that mean several things there."""
    for module in pkgutil.walk_packages(offsite.__path__, "offsite."):
        if not module.name.endswith("__main__") and ".migrations" not in module.name:  # these run when imported
            import_module(module.name)
    named: dict[int, set[str]] = {}
    for each in _kinds_of(OffsiteError):
        if "code" in vars(each):
            named.setdefault(each.code, set()).add(each.__name__)
    assert {code: names for code, names in named.items() if len(names) > 1} == SHARED


def _kinds_of(error: type[OffsiteError]) -> Iterator[type[OffsiteError]]:
    for each in error.__subclasses__():
        yield each
        yield from _kinds_of(each)
