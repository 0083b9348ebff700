"""The grammar: words come in, and a call or a sentence about them comes out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsite.errors import BadParameter
from offsite.management.command_table.parser import UsageError, parse, split
from offsite.management.commands import TABLE

CREATE = {"name": "Sales", "pool": "A", "size": 1 << 30}


@pytest.mark.parametrize(
    "line",
    [
        "create volume pool A size 1GiB Sales",
        "create volume size 1GiB pool A Sales",
        "create volume Sales size 1GiB pool A",
        "create volume pool A Sales size 1GiB",
        "create volume pool A size 1GiB name Sales",
        "create volumes pool A size 1GiB Sales",
        "CREATE Volume POOL A Size 1GiB Sales",
        'create volume pool "A" size "1GiB" "Sales"',
    ],
)
def test_keywords_come_in_any_order_and_the_name_first_or_last(line: str) -> None:
    call = parse(TABLE, split(line))
    assert (call.command.text, call.arguments) == ("create volume", CREATE)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ('create volume pool A size 1GiB "size"', "size"),
        ("create volume pool A size 1GiB size", "size"),
        ("create volume pool A size 1GiB access", "access"),
        ('create volume "pool" pool A size 1GiB', "pool"),
        ('create volume pool A size 1GiB "Sales and Marketing"', "Sales and Marketing"),
    ],
)
def test_a_volume_may_be_called_like_a_keyword_or_with_spaces(line: str, name: str) -> None:
    assert parse(TABLE, split(line)).arguments["name"] == name


@pytest.mark.parametrize("line", ["show volume", "show volumes", "show Volumes Sales"])
def test_nouns_may_be_singular_or_plural(line: str) -> None:
    assert parse(TABLE, split(line)).command.text == "show volumes"


def test_a_verb_alone_may_be_a_command() -> None:
    call = parse(TABLE, ["replicate", "SalesDR"])
    assert (call.command.text, call.arguments) == ("replicate", {"name": "SalesDR"})


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("delete volumes prompt yes A", "yes"),
        ("delete volumes A noprompt", "yes"),
        ("delete volumes A prompt no", "no"),
    ],
)
def test_a_question_may_be_answered_beforehand(line: str, answer: str) -> None:
    call = parse(TABLE, split(line))
    assert (call.prompt, call.arguments) == (answer, {"names": ("A",)})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", ["no command"]),
        ("creat volume", ["'creat'", "did you mean 'create'"]),
        ("create volum", ["'volum'", "did you mean 'volume'", "snapshots"]),
        ("create", ["no object specified for create", "volume", "user"]),
        ("create volume pool A Sales", ["size is missing", "syntax: create volume", "size <size>"]),
        ("create volume pool A size 1GiB", ["name is missing"]),
        ("create volume pool A size 1GiB Sales sise 2GiB", ["'sise'", "did you mean 'size'", "syntax:"]),
        ("create volume pool A size 1GiB pool B Sales", ["pool is given twice"]),
        ("create volume Sales pool A size 1GiB size 2GiB", ["size is given twice"]),
        ("create volume Sales pool A size 1GiB lun", ["lun has no value"]),
        ("show versions Sales", ["'Sales'", "syntax: show versions"]),
    ],
)
def test_what_is_no_command_is_answered_with_the_word_and_what_would_be_right(line: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as refusal:
        parse(TABLE, split(line))
    for word in words:
        assert word in str(refusal.value)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("show volumes pattern 'v*'", "unknown parameter 'pattern' of show volumes"),
        ("show volumes 'v*' pattern x", "unknown parameter 'pattern' of show volumes"),
        ("show volumes pool A pattern 'v*'", "unknown parameter 'pattern' of show volumes"),
        ("create volume pol A size 1GiB Sales", "unknown parameter 'pol' of create volume (did you mean 'pool'?)"),
        ("create volume Sales pol A size 1GiB", "unknown parameter 'pol' of create volume (did you mean 'pool'?)"),
        ("set volume nam New Old", "unknown parameter 'nam' of set volume (did you mean 'name'?)"),
        ("create volume owner anna pool A size 1GiB Sales", "unknown parameter 'owner' of create volume"),
        ("map volume Sales initator x", "unknown parameter 'initator' of map volume (did you mean 'initiator'?)"),
        ("show events pattern x", "unknown parameter 'pattern' of show events"),
        ("delete volumes sales accounts", "delete volumes: unexpected 'accounts' after 'sales'; several need commas"),
        ("show volumes Sales Accounts", "show volumes: unexpected 'Accounts' after 'Sales'; several need commas"),
        ("create volume pool A size 1GiB sales extra", "create volume: unexpected 'extra' after 'sales'; syntax"),
        ("create volume pool A size 1GiB lun 1 Sales lun 2", "create volume: lun is given twice"),
        ('create volume pool A size 1GiB "pool" Sales', "create volume: unexpected 'Sales' after 'pool'; syntax"),
        ("create volume name Sales extra pool A size 1GiB", "create volume: unexpected 'extra'; syntax"),
        ("create user manage anna", "create user: unexpected 'anna' after 'manage'; syntax"),
        ("create volume size pool A Sales", "create volume: size has no value; the word after it, pool, is a keyword"),
        ("create volume pool size 1GiB", "create volume: pool has no value; the word after it, size, is a keyword"),
        ("create volume pool A lun size 1GiB Sales", "create volume: lun has no value; the word after it, size, is a"),
        (
            "create task type Replicate replication-set S last-snapshot maybe T",
            "create task: last-snapshot: 'maybe' is not one of on, off",
        ),
    ],
)
def test_the_word_that_is_wrong_is_blamed_and_not_the_one_after_it(line: str, sentence: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parse(TABLE, split(line))
    assert sentence in str(refusal.value)


def test_an_empty_word_too_many_is_refused_as_any_other() -> None:
    with pytest.raises(UsageError, match="unexpected '' after 'Sales'"):
        parse(TABLE, ["create", "volume", "pool", "A", "size", "1GiB", "Sales", ""])


def test_a_keyword_in_the_name_of_a_choice_does_not_stand_for_itself() -> None:
    """`no-access` is no mention of `access`."""
    with pytest.raises(BadParameter, match=r"^access: 'all' is not one of"):
        parse(TABLE, split("create volume pool A size 1GiB access all Sales"))


@pytest.mark.parametrize("line", ['show volumes "Sales', 'show volumes Sa"les', '"a"b'])
def test_a_stray_double_quote_is_a_usage_error(line: str) -> None:
    with pytest.raises(UsageError, match="double quote"):
        split(line)


def test_a_line_has_a_limit() -> None:
    with pytest.raises(UsageError, match="at most"):
        split("x" * 70_000)


def test_the_sentence_about_a_value_names_its_keyword() -> None:
    with pytest.raises(BadParameter, match=r"^last: '0' is not a whole number from 1 to"):
        parse(TABLE, ["show", "events", "last", "0"])


@pytest.mark.parametrize(
    ("line", "last_snapshot"),
    [
        ("create task type Replicate replication-set SalesDR last-snapshot Nightly", True),
        ("create task type Replicate replication-set SalesDR Nightly last-snapshot", True),
        ("create task type Replicate replication-set SalesDR last-snapshot on Nightly", True),
        ("create task type Replicate replication-set SalesDR last-snapshot OFF Nightly", False),
        ("create task type Replicate replication-set SalesDR Nightly", False),
        ("set task last-snapshot Nightly", True),
        ("set task last-snapshot off Nightly", False),
        ("set task retention-count 3 Nightly", None),
    ],
)
def test_last_snapshot_is_the_same_in_every_command(line: str, last_snapshot: bool | None) -> None:
    """ME4 has it without a value in `create task`, and with one in `set task`: scripts may write either in both."""
    arguments = parse(TABLE, split(line)).arguments
    assert "Nightly" in (arguments.get("name"), arguments.get("task"))
    assert arguments.get("last_snapshot") is last_snapshot


def test_a_task_may_be_called_like_a_value() -> None:
    arguments = parse(TABLE, split('set task last-snapshot "on"')).arguments
    assert (arguments["last_snapshot"], arguments["task"]) == (True, "on")


def test_a_default_comes_from_the_declaration() -> None:
    assert parse(TABLE, split("map volume Sales")).arguments == {"names": ("Sales",), "access": "read-write"}
    assert parse(TABLE, split("map volume access ro Sales")).arguments["access"] == "read-only"
    taking = "create task type TakeSnapshot source-volume Sales snapshot-prefix s retention-count 1 Daily"
    assert "last_snapshot" not in parse(TABLE, split(taking)).arguments, "that is of another type"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("create pool size 1GiB overwrite B", "create pool: overwrite requires device; give device as well"),
        (
            "create task type ResetSnapshot last-snapshot T",
            "create task: last-snapshot is not valid with type ResetSnapshot",
        ),
        ("create task type Replicate T", "create task: type Replicate requires replication-set; syntax: create task"),
    ],
)
def test_a_parameter_without_what_it_goes_with_is_refused(line: str, sentence: str) -> None:
    with pytest.raises(BadParameter) as refusal:
        parse(TABLE, split(line))
    assert sentence in str(refusal.value)


KNOWN_WORDS = sorted(
    {word for command in TABLE for word in command.words}
    | {parameter.name for command in TABLE for parameter in command.parameters}
    | {"A", "1GiB", "Sales", "a,b", "prompt", "yes", '"', '"x"', ""}
)


@given(st.lists(st.sampled_from(KNOWN_WORDS) | st.text(max_size=12), max_size=8))
def test_words_in_any_order_never_end_in_anything_but_a_call_or_a_refusal(words: list[str]) -> None:
    try:
        call = parse(TABLE, words)
    except BadParameter as error:
        assert str(error)
        return
    parameters = call.command.parameters
    required = {each.argument for each in parameters if each.required and not each.is_secret and each.needs is None}
    assert required <= set(call.arguments) <= {each.argument for each in call.command.parameters}


@given(st.text(max_size=200))
def test_any_line_is_split_or_refused(line: str) -> None:
    try:
        words = split(line)
    except UsageError:
        return
    assert "".join(words).replace(" ", "") == "".join(line.split()).replace(" ", "") or '"' in line
