"""A copy of a real system's directory, started beside it: its peer takes one of the two, and an operator says which."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.interop.replication import Replicated, events
from tests.systems import System, loopback, two_systems, wait_until

pytestmark = pytest.mark.slow


def peer_of(system: System, name: str) -> dict[str, object]:
    return dict(system.ask("show", "peer-connections", name)["peer-connections"][0])


def test_of_two_copies_one_is_taken_and_an_operator_may_turn_it_round(tmp_path: Path) -> None:
    with two_systems(tmp_path) as (london, newark):
        pair = Replicated(london, newark)
        pair.make_volume("Sales")
        pair.make_set("SalesDR", "Sales")
        pair.replicate("SalesDR")
        london.stop()
        twin = System("London", loopback(3), tmp_path / "twin")
        twin.password = london.password
        shutil.copytree(london.directory, twin.directory)
        london.start()
        pair.replicate("SalesDR")
        taken = peer_of(newark, "London")["remote-start"]
        twin.start()
        try:
            for system, code in ((newark, 650), (twin, 651)):
                wait_until("it is told", lambda s=system, c=code: bool(events(s, c, "start ")))  # type: ignore[misc]
            refused = peer_of(newark, "London")
            assert (refused["remote-start"], refused["connection-status"]) == (taken, "Online")
            assert "was refused" in str(refused["error"])
            assert "accepts start" in str(peer_of(twin, "Newark")["error"])
            (answer,) = twin.ask("query", "peer-connection", newark.peer_address)["remote-systems"]
            assert "a second copy of itself" in answer["error"]
            pair.replicate("SalesDR")
            assert (len(events(newark, 650, "start ")), len(events(twin, 651, "start "))) == (1, 1)

            newark.ask("set", "peer-connection", "accept-incarnation", str(refused["refused-start"]), "London")
            (answer,) = twin.ask("query", "peer-connection", newark.peer_address)["remote-systems"]
            assert answer["error"] == ""
            assert peer_of(twin, "Newark")["error"] == ""
            (answer,) = london.ask("query", "peer-connection", newark.peer_address)["remote-systems"]
            assert "copy of itself" in answer["error"]
            assert len(events(london, 651, "start ")) == 1
            assert peer_of(newark, "London")["remote-start"] == refused["refused-start"]
        finally:
            twin.stop()
