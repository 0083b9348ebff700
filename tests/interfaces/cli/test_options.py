"""Options of the command line: where they may stand, and what is said about wrong ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsite.errors import BadParameter
from offsite.interfaces.cli import declared
from offsite.interfaces.cli.command_line import _OWN_WAYS, _own_way
from offsite.interfaces.cli.options import OPTIONS, OptionError, parse_options
from offsite.management.command_table.command import Option


def test_options_stand_anywhere_and_words_keep_their_order() -> None:
    line = parse_options(["create", "--state", "DIR", "volume", "--json", "size", "1GiB", "-y"])
    assert line.words == ("create", "volume", "size", "1GiB")
    assert line.options == {"state": "DIR", "json": "", "yes": ""}


def test_a_value_may_follow_an_equals_sign_and_may_look_like_an_option() -> None:
    assert parse_options(["--state=--json"]).options == {"state": "--json"}
    assert parse_options(["--state", "--json"]).options == {"state": "--json"}


def test_behind_two_dashes_everything_is_a_word() -> None:
    assert parse_options(["show", "--", "--json", "--", "x"]).words == ("show", "--json", "--", "x")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--jsn"], "--jsn is an unknown option; did you mean --json?"),
        (["--zzzzzz"], "--zzzzzz is an unknown option; `offsite --help` lists them"),
        (["--state"], "--state has no value; syntax: --state DIR"),
        (["--json", "--json"], "--json is given twice"),
        (["--json=yes"], "--json takes no value"),
        (["--wait", "show", "volumes"], "--wait is an option of replicate, not of show"),
        (["--pool", "A"], "--pool is an option of import, not of a line without a command"),
        (["create", "volume", "--directory", "x"], "--directory is an option of create initiator-certificate"),
    ],
)
def test_a_wrong_option_is_named_with_what_would_be_right(arguments: list[str], sentence: str) -> None:
    with pytest.raises(OptionError) as refusal:
        parse_options(arguments)
    assert sentence in str(refusal.value)


def test_an_option_of_a_command_goes_with_its_words_in_the_plural_too() -> None:
    line = parse_options(["Create", "initiator-certificates", "web1", "--directory", "x"])
    assert line.options == {"directory": "x"}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["Replicates", "SalesDR", "--wait"], "replicate"),
        (["creates", "initiator-certificate", "web1", "--directory", "x"], "create initiator-certificate"),
        (["imports", "Sales", "sales.raw", "--pool", "A"], "import"),
    ],
)
def test_a_verb_in_the_plural_is_done_with_its_options(words: list[str], text: str) -> None:
    """Otherwise --wait would be taken, and not waited for."""
    assert _own_way(parse_options(words)) is _OWN_WAYS[text]


def test_an_option_has_one_meaning_wherever_it_stands() -> None:
    """It is read before the command is known."""
    found: dict[str, Option] = {each.name: each for each in OPTIONS}
    for command in declared.commands():
        for option in command.options:
            assert found.setdefault(option.name, option) == option, option.name


def test_the_value_of_an_option_is_read_by_its_type() -> None:
    line = parse_options(["serve", "d", "--api-port", "0", "--pool-size=1GiB", "--new-keys"])
    assert line.options == {"api-port": 0, "pool-size": 1 << 30, "new-keys": ""}
    with pytest.raises(BadParameter, match=r"^--api-port: '65536' is not a whole number from 0 to 65535$"):
        parse_options(["serve", "d", "--api-port", "65536"])


NAMES = st.sampled_from([f"--{option.name}" for option in OPTIONS] + ["--", "-h", "serve", "replicate", "x", "--a=b"])


@given(st.lists(NAMES | st.text(max_size=8), max_size=8))
def test_any_arguments_are_taken_or_refused(arguments: list[str]) -> None:
    try:
        line = parse_options(arguments)
    except BadParameter as error:
        assert str(error)
        return
    assert len(line.words) + len(line.options) <= len(arguments)
