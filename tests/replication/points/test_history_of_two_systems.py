"""The snapshot history of a set on both systems: numbers that go on, names that mean one thing, and what a primary that
somebody has taken over cannot do to it."""

from __future__ import annotations

import uuid

import numpy as np
import pytest

from offsite.pools.protocol import Create, Rename
from offsite.replication.points.snapshot_history import history_of
from offsite.replication.sets.settings import ChosenSettings
from offsite.replication.wire.batch import DIGEST_START, EXTENT, chain, digest_of
from offsite.replication.wire.messages import (
    Ack,
    Ask,
    Batch,
    Begin,
    ChangeSet,
    Commit,
    Committed,
    Done,
    HistorySnapshot,
    Holds,
    Position,
    Ready,
    SetSettings,
)
from tests.replication.sites import Site, pair

MIB = 1 << 20


@pytest.fixture(autouse=True)
def volume(london: Site, newark: Site) -> int:
    pair(london, newark)
    image_id = london.create_volume("Sales", MIB)
    settings = ChosenSettings(snapshot_history="both", snapshot_basename="h", snapshot_count=4)
    london.create_set("DR", image_id, "Newark", settings=settings)
    return image_id


def history(site: Site, name: str = "DR") -> list[str]:
    """Names, oldest first."""
    of = site.replication.sets.record(name)
    with site.database.read() as connection:
        ids = [each.image_id for each in history_of(connection, of.id)]
    names = {image.id: image.name for image in site.pools["A"].images()}
    return [names[image_id] for image_id in ids]


def run(london: Site, volume: int, byte: int) -> None:
    london.write(volume, 0, bytes([byte]) * 4096)
    assert london.run_to_end("DR").state == "success"


def told(site: Site, code: int) -> list[str]:
    return [message for kind, message in site.events if kind.code == code]


def commit_nothing(london: Site, number: int, count: int, age: float = 0.0) -> Committed:
    """What a hijacked primary may say: a point that changes nothing, and what is to be kept of it."""
    of = london.replication.sets.record("DR")
    peer = london.replication.peers.record_of(of.peer_id)
    point = str(uuid.uuid4())
    with london.replication.peers.connect(peer) as connection:
        ask, asking = connection.channel.ask, connection.asking
        base = ask(asking, Ask(set_uuid=of.uuid, generation=of.generation), Holds).base
        begin = Begin(generation=1, run=point, point=point, base=base, taken_at=age, sizes_bytes=[MIB])
        ask(asking, begin, Ready)
        digest = digest_of_nothing()
        batch = Batch(sequence=0, position=Position(1, 0), extents=0, data_bytes=0, compression=0, digest=digest)
        ask(asking, batch, Ack)
        kept = HistorySnapshot(basename="h", number=number, count=count, retention_priority="low")
        commit = Commit(generation=1, run=point, point=point, digest=chain(DIGEST_START, digest), history=kept)
        return ask(asking, commit, Committed)


def digest_of_nothing() -> bytes:
    return digest_of(np.empty(0, EXTENT), memoryview(b""))


def test_one_commit_with_a_count_of_one_and_a_high_number_takes_no_more_than_its_place(
    london: Site, newark: Site, volume: int
) -> None:
    for byte in range(4):
        run(london, volume, byte)
    assert history(newark) == ["h_0000", "h_0001", "h_0002", "h_0003"]
    outcome = commit_nothing(london, number=99_999, count=1).outcome
    assert outcome.snapshot_number == 4, "numbers follow on"
    assert history(newark) == ["h_0001", "h_0002", "h_0003", "h_0004"]


def test_a_count_that_the_primary_lowers_comes_true_by_one_a_run_and_is_told(
    london: Site, newark: Site, volume: int
) -> None:
    for byte in range(4):
        run(london, volume, byte)
    lower(london, 1)
    assert told(newark, 663) == [
        "The primary of replication set DR now asks to keep only 1 snapshots of its history, instead of 4. Each run "
        "deletes one more snapshot, down to 1."
    ]
    left = []
    for _ in range(4):
        commit_nothing(london, number=99_999, count=1)
        left.append(history(newark))
    assert left == [["h_0002", "h_0003", "h_0004"], ["h_0004", "h_0005"], ["h_0006"], ["h_0007"]]


def lower(london: Site, count: int | None) -> None:
    of = london.replication.sets.record("DR")
    kept = {"snapshot_history": "both", "snapshot_basename": "h"} if count else {"snapshot_history": "disabled"}
    settings = SetSettings(name="DR", snapshot_count=count, **kept)  # type: ignore[arg-type]  # as they are
    with london.replication.peers.connect(london.replication.peers.record_of(of.peer_id)) as connection:
        connection.channel.ask(connection.asking, ChangeSet(generation=1, set_uuid=of.uuid, settings=settings), Done)


def test_a_history_that_the_primary_ends_is_told_and_stays(london: Site, newark: Site, volume: int) -> None:
    run(london, volume, 1)
    lower(london, None)
    assert told(newark, 663) == [
        "The primary of replication set DR now asks for no snapshots in its history, instead of 4. Existing snapshots "
        "stay."
    ]
    assert history(newark) == ["h_0000"]


@pytest.mark.parametrize(("count", "hours"), [(3, None), (None, 1)])
def test_what_the_users_of_the_secondary_say_is_kept_at_least(
    london: Site, newark: Site, volume: int, count: int | None, hours: int | None
) -> None:
    """Also for a primary that says that its data is ancient."""
    newark.replication.sets.protect("DR", count, hours)
    for byte in range(3):
        run(london, volume, byte)
    lower(london, 1)
    for _ in range(3):
        commit_nothing(london, number=60_000, count=1)
    assert history(newark) == (["h_0003", "h_0004", "h_0005"] if count else [f"h_000{n}" for n in range(6)])


def test_a_history_is_not_filled_without_end(london: Site, newark: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offsite.replication.points.history_rotation.HISTORY_MAX", 3)
    newark.replication.sets.protect("DR", None, 1)
    for _ in range(4):
        commit_nothing(london, number=0, count=1)
    assert history(newark) == ["h_0000", "h_0001", "h_0002"]
    (message,) = told(newark, 660)
    assert "kept no snapshot" in message and "minimum-snapshot-age 1" in message


def test_a_name_in_use_on_the_secondary_is_told_on_both_and_the_next_number_is_taken_by_both(
    london: Site, newark: Site, volume: int
) -> None:
    newark.pools["A"].apply([Create("h_0001", MIB)])
    for byte in range(3):
        run(london, volume, byte)
    for site in (london, newark):
        assert history(site) == ["h_0000", "h_0002", "h_0003"]
        assert site.content("h_0002")[:1] == b"\1" and site.content("h_0003")[:1] == b"\2"
    assert told(newark, 661) == [
        "A run of replication set name: DR, should have kept the snapshot h_0001; that name is in use here, so it "
        "kept h_0002."
    ]
    (message,) = told(london, 661)
    assert "number 1; on the secondary it has number 2" in message and "were renamed to h_0002" in message


def test_a_name_in_use_on_the_primary_is_told_and_the_secondary_follows(
    london: Site, newark: Site, volume: int
) -> None:
    london.create_volume("h_0000", MIB)
    run(london, volume, 1)
    assert history(london) == history(newark) == ["h_0001"]
    assert told(london, 661) == [
        "A run of replication set name: DR, should have kept the snapshot h_0000; that name is in use here, so it "
        "kept h_0001."
    ]


def test_numbers_go_on_above_the_secondarys_when_the_primary_was_restored(
    london: Site, newark: Site, volume: int
) -> None:
    """One name never means two contents: what the restored primary would call h_0001 is there already."""
    for byte in range(3):
        run(london, volume, byte)
    with london.database.transaction() as connection:  # as an older copy of its database says
        connection.exec_driver_sql("UPDATE replication_sets SET next_snapshot_number = 1")
    pool = london.pools["A"]
    pool.apply([Rename(london.image_id(name), f"old-{name}") for name in history(london)])
    run(london, volume, 9)
    assert history(newark) == ["h_0000", "h_0001", "h_0002", "h_0003"]
    assert history(london)[-1] == "h_0003"
    assert len(told(london, 661)) == len(told(newark, 661)) == 1
    run(london, volume, 10)
    assert history(london)[-1] == history(newark)[-1] == "h_0004"


def test_numbers_go_on_above_the_primarys_when_the_secondary_was_restored(
    london: Site, newark: Site, volume: int
) -> None:
    run(london, volume, 1)
    with london.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE replication_sets SET next_snapshot_number = 20")
    run(london, volume, 2)
    assert history(london) == history(newark) == ["h_0000", "h_0020"]


def test_after_the_last_number_comes_the_first_on_both(london: Site, newark: Site, volume: int) -> None:
    def set_next(site: Site, number: int) -> None:
        with site.database.transaction() as connection:
            connection.exec_driver_sql(f"UPDATE replication_sets SET next_snapshot_number = {number}")

    for site in (london, newark):
        set_next(site, 99_999)
    for byte in range(2):
        run(london, volume, byte)
    assert told(london, 661) + told(newark, 661) == [], "none took the place of another"
    set_next(newark, 99_998)  # it was restored: what the primary says is ahead of that
    run(london, volume, 2)
    assert history(london) == history(newark) == ["h_99999", "h_0000", "h_0001"]


def test_a_history_snapshot_shows_the_instant_of_its_data_on_both_sides(
    london: Site, newark: Site, volume: int
) -> None:
    """Also when the run was queued, and when the point waited."""
    newark.replication.stop()
    london.run_to_trouble("DR")
    london.write(volume, 0, b"queued")
    queued = london.replication.replicate("DR").run
    with london.database.read() as connection:
        rows = connection.exec_driver_sql("SELECT uuid, taken_at FROM points").all()
    taken = {row[0]: row[1] for row in rows}
    newark.open()
    newark.start()
    london.replication.resume("DR")
    london.await_end("DR", queued)
    for site in (london, newark):
        times = {image.name: image.created_at for image in site.pools["A"].images()}
        with site.database.read() as connection:
            of = site.replication.sets.record("DR")
            held = history_of(connection, of.id)
        names = {image.id: image.name for image in site.pools["A"].images()}
        assert {each.run: times[names[each.image_id]] for each in held} == taken
