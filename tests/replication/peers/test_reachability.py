"""Whether a peer is there: nobody waits long for one that says nothing, however many ask."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from offsite.clock import SystemClock
from offsite.errors import PeerUnreachable
from offsite.replication.peers.reachability import PATIENCE_SECONDS, Reachability
from offsite.replication.records.peer_records import PeerRecord

PEER = PeerRecord(
    id=1,
    name="Newark",
    system_uuid="u",
    system_name="Newark",
    address="h:1",
    certificate=b"",
    created_at=0.0,
    bandwidth_limit=None,
    bandwidth_calendar="",
    secondary_sets=True,
    secondary_size_limit=None,
)


class SilentDialer:
    """Its peers do not answer before it is told that they are gone."""

    def __init__(self) -> None:
        self.gone = threading.Event()
        self.dials = 0

    def dial(self, *_: object) -> Any:
        self.dials += 1
        self.gone.wait(30)
        raise PeerUnreachable("gone")


def test_many_questions_wait_for_a_silent_peer_as_long_as_one() -> None:
    dialer = SilentDialer()
    reachability = Reachability(dialer, SystemClock())
    begun = time.perf_counter()
    assert not any(reachability.is_online(PEER) for _ in range(32))
    assert time.perf_counter() - begun < 4 * PATIENCE_SECONDS
    assert dialer.dials == 1
    dialer.gone.set()


class FaultyDialer:
    """A fault of the program, or a database that breaks a rule of its own."""

    dials = 0

    def dial(self, *_: object) -> Any:
        self.dials += 1
        raise RuntimeError("a fault")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_after_a_fault_it_is_asked_again() -> None:
    """Were the question still open, nobody would ask any more, and the peer count as gone for good."""
    dialer = FaultyDialer()
    reachability = Reachability(dialer, SystemClock())
    for _ in range(2):
        assert not reachability.is_online(PEER)
        reachability.forget()
    assert dialer.dials == 2
