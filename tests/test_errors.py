"""The codes of errors, by which programs tell one from another."""

from __future__ import annotations

from pathlib import Path

import pytest

from offsite.interfaces.cli import return_codes
from offsite.return_codes import OWN, ReturnCode

ME4 = {2, -3177, -3442, -10007, -10027, -10050, -10058, -10074, -10075, -10183, -10186, -10386, -10389, -10509}
PAGE = Path(__file__).parents[1] / "docs" / "return-codes.md"


def test_every_code_is_that_of_one_error() -> None:
    """Not of two, so that it has one meaning; and in the catalogue, so that nobody takes it once more."""
    names = {code: [each.__name__ for each in errors] for code, errors in return_codes.declared().items()}
    assert names == {code: [code.name.title().replace("_", "")] for code in ReturnCode}


@pytest.mark.parametrize("code", ReturnCode, ids=lambda code: code.name)
def test_a_code_is_one_of_me4_or_in_offsites_own_range(code: ReturnCode) -> None:
    assert code in ME4 or code in OWN


def test_the_page_of_return_codes_is_the_catalogue() -> None:
    assert PAGE.read_text() == return_codes.page(), "`make docs` makes it"
