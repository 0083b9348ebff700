"""`replicate --wait`: what is shown of a run, and how it ends."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from offsite.errors import ProtocolError
from offsite.interfaces.cli import replicate_wait
from offsite.interfaces.cli.options import parse_options
from offsite.interfaces.cli.progress_bar import bar
from offsite.interfaces.cli.replicate_wait import RunDropped, RunFailed, replicate, state, summary
from offsite.management.command_table.object_types import ObjectType, Property, Row, Value
from offsite.management.command_table.reply import Reply
from offsite.management.commands.runs import RUN
from tests.interfaces.rows import row

MIB = 1 << 20


def run(**values: Value) -> Row:
    blank: dict[str, Value] = {each.name: None for each in RUN.all_properties}
    given = {name.replace("_", "-"): value for name, value in values.items()}
    usual: dict[str, Value] = {"run": "r1", "replication-set": "Sales DR", "state": "running", "phase": "sending"}
    return row(RUN, blank | {"error": ""} | usual | given)


class Scripted:
    """A system whose run goes as a test writes it down."""

    def __init__(self, *answers: Row | tuple[Row, ...]) -> None:
        self._rows: Iterator[Row | tuple[Row, ...]] = iter(answers)
        self.asked: list[Sequence[str]] = []

    def command(self, words: Sequence[str]) -> Reply:
        self.asked.append(words)
        answer = next(self._rows)
        return Reply(rows=answer if isinstance(answer, tuple) else (answer,))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicate_wait, "POLL_SECONDS", 0.001)


LINE = parse_options(["replicate", "Sales DR", "--wait"])


def test_it_asks_until_the_run_has_ended_and_sums_up() -> None:
    done = run(state="success", changed_bytes=3 * MIB, wire_bytes=2 * MIB, duration=1.5)
    system = Scripted(run(), run(progress=50.0), (run(run="another", state="queued"), run()), done)
    reply = replicate(system, LINE)
    assert reply.message == (
        "Sales DR is up to date: 3 MiB had changed, 2 MiB went over the wire, in 1.50 s; the digests of all that was "
        "sent are equal."
    )
    assert system.asked[0] == ("replicate", "Sales DR")
    assert system.asked[1] == ["show", "replication-runs", '"Sales DR"'], "a name with a space stays one word"
    assert len(system.asked) == 4


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_nothing_of_a_run_or_of_a_title_steers_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names come from a system, which may be a hostile one."""
    evil, shown = "a\nb\x1b[2J\u202e", "a\\nb\\x1b[2J\\u202e"
    monkeypatch.setattr(sys, "stderr", screen := Screen())
    done = run(run=evil, replication_set=evil, state="success", changed_bytes=0, wire_bytes=0, duration=1.0)
    replicate(Scripted(run(run=evil, replication_set=evil, state="queued"), done), LINE)
    assert f"Run {shown} is queued" in screen.getvalue()
    assert f"Replicating {shown}" in screen.getvalue()
    with bar(evil, 1) as advance:
        advance(1)
    assert screen.getvalue().count(shown) > 2
    assert "\x1b[2J" not in screen.getvalue() and "\u202e" not in screen.getvalue()


@pytest.mark.parametrize("ended", ["failed", "aborted"])
def test_a_run_that_ends_badly_is_an_error_that_says_why(ended: str) -> None:
    with pytest.raises(RunFailed, match=f"ended as {ended}: the pool is full"):
        replicate(Scripted(run(), run(state=ended, error="the pool is full")), LINE)


def test_a_run_that_waits_for_an_operator_is_not_waited_for() -> None:
    """Else a nightly `--wait` on a full pool would hang for ever, and nobody would hear of it."""
    waiting = run(phase="waiting", error="Newark: pool A is full", error_class="operator must act")
    with pytest.raises(RunFailed, match=r"Sales DR cannot continue: Newark: pool A is full.*continues by itself"):
        replicate(Scripted(run(), waiting), LINE)


def test_a_peer_that_is_gone_is_waited_for() -> None:
    gone = run(phase="waiting", error="cannot reach Newark", error_class="try again")
    done = run(state="success", changed_bytes=0, wire_bytes=0, duration=1.0)
    assert "is up to date" in replicate(Scripted(run(), gone, gone, run(), done), LINE).message


def test_a_queued_request_is_waited_for_until_its_own_run_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    """The end of the run ahead of it is not the end of what was asked for."""
    queued = run(run="mine", state="queued")
    ahead = run(run="ahead")
    ahead_done = run(run="ahead", state="success")
    mine_done = run(run="mine", state="success", changed_bytes=0, wire_bytes=0, duration=1.0)
    system = Scripted(queued, (queued, ahead), (queued, ahead_done), (run(run="mine"), ahead_done), (mine_done,))
    assert replicate(system, LINE).message.startswith("Run mine has ended. Sales DR is up to date")
    assert "Run mine is queued behind the run in progress; waiting for it." in capsys.readouterr().err


def test_a_queued_request_ends_when_the_run_ahead_waits_for_an_operator() -> None:
    queued = run(run="mine", state="queued")
    stuck = run(run="ahead", phase="waiting", error="Newark: pool A is full", error_class="operator must act")
    with pytest.raises(RunFailed, match=r"cannot continue: Newark: pool A is full"):
        replicate(Scripted(queued, (queued, stuck)), LINE)


@pytest.mark.parametrize("first", ["dropped", "queued"])
def test_a_request_that_is_dropped_is_told_apart_from_a_run_that_failed(first: str) -> None:
    """By a queue policy at once, or by a newer request later."""
    dropped = run(run="mine", state="dropped", error="a newer request replaced it in the queue")
    with pytest.raises(RunDropped, match="run mine of replication set Sales DR was dropped: a newer request"):
        replicate(Scripted(run(run="mine", state=first, error="a newer request"), dropped), LINE)


def test_a_run_that_is_no_longer_on_record_is_not_waited_for_for_ever() -> None:
    with pytest.raises(RunFailed, match="run r1 of replication set Sales DR no longer exists"):
        replicate(Scripted(run(), (run(run="another"),)), LINE)


BARE = ObjectType[Any]("runs", "run", (Property("run"), Property("replication-set")))


@pytest.mark.parametrize("answers", [[()], [(run(), run())], [Row(BARE, ("r1", "x"))], [run(), Row(BARE, ("r1", "x"))]])
def test_a_system_that_tells_of_no_run_is_an_error_in_words(answers: list[Row | tuple[Row, ...]]) -> None:
    with pytest.raises(ProtocolError, match=r"with \d runs instead of one|a run without .*state"):
        replicate(Scripted(*answers), LINE)


def test_what_is_shown_has_bytes_rate_and_expected_end() -> None:
    sending = run(total_bytes=100 * MIB, left_bytes=40 * MIB, rate=20.0 * MIB, estimated_time=1002.0)
    assert state(sending, 1000.0) == "60 MiB of 100 MiB, 20 MiB/s, 2.00 s left"
    assert state(run(), 1000.0) == "0 B of 0 B, 0 B/s"


def test_what_a_run_waits_for_is_shown() -> None:
    assert state(run(phase="connecting"), 0.0) == "connecting"
    assert state(run(phase="waiting", error="Newark does not answer"), 0.0) == "waiting: Newark does not answer"


def test_a_run_of_nothing_is_summed_up_too() -> None:
    assert summary("x", run(changed_bytes=0, wire_bytes=415, duration=0.1)).startswith("x is up to date: 0 B had")
