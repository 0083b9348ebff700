"""R5 with sets of both directions over one peer connection: what holds from London to Newark holds from Newark to
London, and what befalls one of the sets leaves the other one alone."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from offsite.errors import SetDiverged
from offsite.replication.sets.status import Status
from tests.replication.points.test_restored_systems import put_back, save, snapshots
from tests.replication.sites import Site, pair, random_bytes
from tests.systems import wait_until

MIB = 1 << 20


@dataclass
class Way:
    """A set, and its two ends."""

    primary: Site
    secondary: Site
    name: str
    volume: str

    def replicate(self, seed: int) -> bytes:
        """Returns what was sent."""
        self.primary.write(self.primary.image_id(self.volume), 0, random_bytes(64 << 10, seed))
        assert self.primary.run_to_end(self.name).state == "success"
        content = self.primary.content(self.volume)
        assert self.secondary.content(self.volume) == content
        return content

    def change_at_secondary(self, values: str) -> None:
        with self.secondary.database.transaction() as connection:
            connection.exec_driver_sql(f"UPDATE replication_sets SET {values} WHERE name = '{self.name}'")

    def await_status(self, status: Status) -> None:
        sets = self.primary.replication.sets
        wait_until(f"{self.name} is {status.value}", lambda: sets.get(self.name).status is status)


@pytest.fixture(params=["from London", "from Newark"])
def ways(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, london: Site, newark: Site
) -> tuple[Way, Way]:
    """The set that something befalls, and the one of the other direction."""
    monkeypatch.setattr("offsite.replication.runs.reconciler.SOON_SECONDS", 0.05)
    monkeypatch.setattr("offsite.replication.runs.reconciler.SELDOM_SECONDS", 0.2)
    pair(london, newark)
    here, there = Way(london, newark, "SalesDR", "Sales"), Way(newark, london, "BooksDR", "Books")
    for way in (here, there):
        way.primary.create_set(way.name, way.primary.create_volume(way.volume, MIB), way.secondary.name)
    return (here, there) if request.param == "from London" else (there, here)


def test_each_system_is_primary_of_one_and_secondary_of_the_other(ways: tuple[Way, Way]) -> None:
    for seed, way in enumerate(ways):
        way.replicate(seed)
        roles = [site.replication.sets.record(way.name).role for site in (way.primary, way.secondary)]
        assert roles == ["primary", "secondary"]


def test_a_primary_of_before_a_change_of_roles_is_refused_and_the_other_set_goes_on(ways: tuple[Way, Way]) -> None:
    way, other = ways
    held = way.replicate(1)
    way.change_at_secondary("generation = 2")
    way.primary.write(way.primary.image_id(way.volume), 0, random_bytes(4096, 2))
    error = way.primary.run_to_trouble(way.name).error
    assert (
        error == f"{way.secondary.name}: replication set {way.name} has generation 2 here, but 1 there: its roles "
        "have changed"
    )
    assert way.secondary.content(way.volume) == held
    other.replicate(3)


def test_two_primaries_of_one_generation_send_nothing_and_the_other_set_goes_on(ways: tuple[Way, Way]) -> None:
    way, other = ways
    held = way.replicate(1)
    way.change_at_secondary("role = 'primary'")
    for site in (way.primary, way.secondary):
        error = site.run_to_trouble(way.name).error or ""
        assert error.endswith(f"replication set {way.name} is also primary here")
    assert (way.primary.content(way.volume), way.secondary.content(way.volume)) == (held, held)
    other.replicate(3)


def test_a_diverged_copy_is_not_touched_and_is_kept_before_it_is_replaced(ways: tuple[Way, Way]) -> None:
    """The system that is put back has never had what is on the other one. Of the other set it is the secondary: its
    copy is an older one there, which the next run replaces without asking anybody."""
    way, other = ways
    restored = way.primary
    way.replicate(1)
    other.replicate(2)
    saved = save(restored)
    newest = way.replicate(3)
    other.replicate(4)
    put_back(restored, saved, way.secondary)
    way.await_status(Status.DIVERGED)
    with pytest.raises(SetDiverged):
        restored.replication.replicate(way.name)
    other.replicate(5)
    assert way.secondary.content(way.volume) == newest and snapshots(way.secondary) == []

    resolved = restored.replication.use_primary(way.name)
    wait_until("it is replaced", lambda: way.secondary.content(way.volume) == restored.content(way.volume))
    assert way.secondary.content(resolved.snapshots[0]) == newest
    way.await_status(Status.READY)
    way.replicate(6)
    other.replicate(7)
    assert way.secondary.content(resolved.snapshots[0]) == newest
