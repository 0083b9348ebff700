"""The primary's site was lost and replaced; then the old primary comes back. Nothing that it says leads in a circle."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from offsite.errors import NameInUse, OffsiteError
from tests.management.management_bench import PASSWORD, Bench, bench_in

SECRETS = {"remote-password": PASSWORD}
SECONDS = 60.0


def connect(one: Bench, other: Bench, name: str) -> None:
    address = other.system.addresses["peer"]
    one.do(f"create peer-connection remote-port-address {address} remote-username manage {name}", secrets=SECRETS)


def wait_for_status(bench: Bench, status: str) -> str:
    """Returns what is said beside it."""
    deadline = time.monotonic() + SECONDS
    while (row := bench.rows("show replication-sets SalesDR")[0])["status"] != status:
        assert time.monotonic() < deadline, row["status"]
        time.sleep(0.05)
    return str(row["error"])


@pytest.fixture
def old(make_bench: Callable[[str], Bench]) -> Iterator[tuple[Bench, Bench]]:
    """London, whose set and peer connection Newark has ended, and Newark."""
    london, newark = make_bench("London"), make_bench("Newark")
    connect(london, newark, "Newark")
    london.do("create volume pool A size 4MiB Sales")
    london.do("create replication-set peer-connection Newark primary-volume Sales SalesDR")
    london.do("replicate SalesDR")
    wait_for_status(london, "Ready")
    newark.do("delete replication-set local-only SalesDR")
    newark.do("delete peer-connection local-only London")
    yield london, newark


def visit(london: Bench) -> None:
    """A change is told to the peer at once; so is that the system has started."""
    london.do("set replication-set queue-policy discard SalesDR")


@pytest.fixture
def replacement(tmp_path: Path) -> Iterator[Bench]:
    """Another system that is called London."""
    with bench_in(tmp_path / "replacement", "London") as bench:
        yield bench


def messages(bench: Bench) -> list[str]:
    return [str(each["message"]) for each in bench.rows("show events last 50")]


def commands_in(sentence: str) -> list[str]:
    return re.findall(r"`([^`]+)`", sentence)


def test_a_primary_whose_peer_has_forgotten_it_is_not_ready_and_says_what_to_do(old: tuple[Bench, Bench]) -> None:
    london, _ = old
    visit(london)
    sentence = wait_for_status(london, "Not Ready")
    assert commands_in(sentence) == [
        "set peer-connection remote-username USER NAME",
        "delete replication-set local-only SET",
        "delete peer-connection local-only NAME",
    ]
    assert len([each for each in messages(london) if "Peer connection Newark: " in each and sentence in each]) == 1


def test_where_another_took_its_place_what_is_left_can_be_ended_as_each_sentence_says(
    old: tuple[Bench, Bench], replacement: Bench
) -> None:
    london, newark = old
    connect(replacement, newark, "Newark")
    with pytest.raises(NameInUse) as refusal:
        london.do("set peer-connection remote-username manage Newark", secrets=SECRETS)
    ends = ["delete replication-set local-only SET", "delete peer-connection local-only NAME"]
    assert commands_in(str(refusal.value))[:2] == ends
    london.do(f"{ends[0].replace('SET', 'SalesDR')} prompt yes")
    london.do(f"{ends[1].replace('NAME', 'Newark')} prompt yes")
    assert london.names("show volumes") == ["Sales"], "its volume is an ordinary one now"
    assert replacement.names("show peer-connections") == ["Newark"], "the new London was not touched"


def test_where_both_are_to_stay_the_peer_connection_is_renamed_as_the_sentence_says(
    old: tuple[Bench, Bench], replacement: Bench
) -> None:
    london, newark = old
    connect(replacement, newark, "Newark")
    visit(london)
    wait_for_status(london, "Not Ready")
    with pytest.raises(OffsiteError) as refusal:
        london.do("set peer-connection remote-username manage Newark", secrets=SECRETS)
    rename = commands_in(str(refusal.value))[-1]
    newark.do(rename.replace("NEW", "London2"))
    london.do("set peer-connection remote-username manage Newark", secrets=SECRETS)
    visit(london)
    deadline = time.monotonic() + SECONDS
    while "Peer connection Newark recovered: the peer accepts this system again." not in messages(london):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert wait_for_status(london, "Not Ready") == "", "the other half of the set is gone all the same"
