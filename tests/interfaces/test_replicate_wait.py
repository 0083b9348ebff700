"""`replicate --wait`: what is shown of a run, and how it ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from offsite.interfaces import replicate_wait
from offsite.interfaces.options import parse_options
from offsite.interfaces.replicate_wait import RunFailed, replicate, state, summary
from offsite.management.commands.runs import RUN
from offsite.management.reply import Reply, Row, Value, row

MIB = 1 << 20


def run(**values: Value) -> Row:
    blank: dict[str, Value] = {each.name: None for each in RUN.properties}
    given = {name.replace("_", "-"): value for name, value in values.items()}
    usual: dict[str, Value] = {"run": "r1", "replication-set": "Sales DR", "state": "running", "phase": "sending"}
    return row(RUN, blank | {"error": ""} | usual | given)


class Scripted:
    """A system whose run goes as a test writes it down."""

    def __init__(self, *rows: Row) -> None:
        self._rows: Iterator[Row] = iter(rows)
        self.asked: list[Sequence[str]] = []

    def command(self, words: Sequence[str]) -> Reply:
        self.asked.append(words)
        return Reply(rows=(next(self._rows),))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicate_wait, "POLL_SECONDS", 0.001)


LINE = parse_options(["replicate", "Sales DR", "--wait"])


def test_it_asks_until_the_run_has_ended_and_sums_up() -> None:
    done = run(state="success", changed_bytes=3 * MIB, wire_bytes=2 * MIB, duration=1.5)
    system = Scripted(run(), run(progress=50.0), run(run="another"), done)
    reply = replicate(system, LINE)
    assert reply.message == (
        "Sales DR is up to date: 3 MiB had changed, 2 MiB went over the wire, in 1.50 s; digests are equal."
    )
    assert system.asked[0] == ("replicate", "Sales DR")
    assert system.asked[1] == ["show", "replication-runs", '"Sales DR"'], "a name with a space stays one word"
    assert len(system.asked) == 4


@pytest.mark.parametrize("ended", ["failed", "aborted"])
def test_a_run_that_ends_badly_is_an_error_that_says_why(ended: str) -> None:
    with pytest.raises(RunFailed, match=f"ended as {ended}: the pool is full"):
        replicate(Scripted(run(), run(state=ended, error="the pool is full")), LINE)


def test_a_run_that_waits_for_an_operator_is_not_waited_for() -> None:
    """Else a nightly `--wait` on a full pool would hang for ever, and nobody would hear of it."""
    waiting = run(phase="waiting", error="Newark: pool A is full", error_class="operator must act")
    with pytest.raises(RunFailed, match=r"Sales DR cannot go on: Newark: pool A is full.*goes on by itself"):
        replicate(Scripted(run(), waiting), LINE)


def test_a_peer_that_is_gone_is_waited_for() -> None:
    gone = run(phase="waiting", error="cannot reach Newark", error_class="try again")
    done = run(state="success", changed_bytes=0, wire_bytes=0, duration=1.0)
    assert "is up to date" in replicate(Scripted(run(), gone, gone, run(), done), LINE).message


def test_what_is_shown_has_bytes_rate_and_expected_end() -> None:
    sending = run(total_bytes=100 * MIB, left_bytes=40 * MIB, rate=20.0 * MIB, estimated_time=1002.0)
    assert state(sending, 1000.0) == "60 MiB of 100 MiB, 20 MiB/s, 2.00 s left"
    assert state(run(), 1000.0) == "0 B of 0 B, 0 B/s"


def test_what_a_run_waits_for_is_shown() -> None:
    assert state(run(phase="connecting"), 0.0) == "connecting"
    assert state(run(phase="waiting", error="Newark does not answer"), 0.0) == "waiting: Newark does not answer"


def test_a_run_of_nothing_is_summed_up_too() -> None:
    assert summary("x", run(changed_bytes=0, wire_bytes=415, duration=0.1)).startswith("x is up to date: 0 B had")
