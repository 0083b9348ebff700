"""Who may use what: maps, the default map, LUNs, and the initiators that were seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, update
from structlog.testing import capture_logs

from offsite.access import maps as maps_module
from offsite.access import tables as access_tables
from offsite.access.maps import Access, Initiator, Map, Maps
from offsite.errors import BadParameter, InUse, MapNotFound, VolumeNotFound
from offsite.pools import tables as pool_tables
from offsite.store.database import Database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A database with the images 1 to 3."""
    database = Database(tmp_path / "state.db")
    with database.transaction() as connection:
        pool = {
            "id": 1, "uuid": "p", "name": "A", "path": "pool-A.data", "page_bytes": 16384,
            "size_bytes": 1 << 30, "overcommit": True, "low_threshold_percent": 50,
            "middle_threshold_percent": 75, "high_threshold_percent": 90, "created_at": 0,
        }  # fmt: skip
        connection.execute(insert(pool_tables.pools).values(pool))
        for number in (1, 2, 3):
            image = {
                "id": number, "uuid": f"u{number}", "pool_id": 1, "name": f"v{number}", "kind": "volume",
                "size_bytes": 1 << 20, "created_at": 0, "nodes": b"",
            }  # fmt: skip
            connection.execute(insert(pool_tables.images).values(image))
    yield database
    database.close()


@pytest.fixture
def maps(database: Database) -> Maps:
    return Maps(database)


def test_an_unmapped_image_is_nobodys(maps: Maps) -> None:
    assert maps.access(1, "nbd:127.0.0.1") is None
    assert maps.granted("nbd:127.0.0.1") == {}


@pytest.mark.parametrize(
    ("default", "own", "granted"),
    [
        (None, "read-write", "read-write"),
        (None, "read-only", "read-only"),
        (None, "no-access", None),
        ("read-only", None, "read-only"),
        ("read-write", "read-only", "read-only"),
        ("read-only", "read-write", "read-write"),
        ("read-write", "no-access", None),
        ("no-access", "read-write", "read-write"),
        ("no-access", None, None),
    ],
)
def test_an_own_map_goes_before_the_default_one(
    maps: Maps, default: Access | None, own: Access | None, granted: str | None
) -> None:
    if default:
        maps.map(1, None, default)
    if own:
        maps.map(1, "tls:db", own)
    maps.map(1, "tls:other", "read-write")
    assert maps.access(1, "tls:db") == granted
    assert maps.access(2, "tls:db") is None


def test_mapping_again_replaces(maps: Maps) -> None:
    maps.map(1, "tls:db", "read-write", lun=1)
    maps.map(1, "tls:db", "read-only", lun=2)
    maps.map(1, None, "no-access")
    assert maps.maps() == [Map(1, "", "no-access", None), Map(1, "tls:db", "read-only", 2)]


def test_unmap_removes_one_map_and_refuses_to_remove_none(maps: Maps) -> None:
    maps.map(1, None, "read-write")
    maps.map(1, "tls:db", "read-write")
    maps.unmap(1, None)
    assert maps.maps() == [Map(1, "tls:db", "read-write", None)]
    with pytest.raises(MapNotFound, match="volume 1 has no map for all initiators"):
        maps.unmap(1, None)
    with pytest.raises(MapNotFound, match="volume 2 has no map for initiator 'tls:db'"):
        maps.unmap(2, "tls:db")


def test_maps_go_with_their_image(maps: Maps, database: Database) -> None:
    maps.map(1, None, "read-write")
    with database.transaction() as connection:
        connection.execute(delete(pool_tables.images).where(pool_tables.images.c.id == 1))
    assert maps.maps() == []


def test_a_lun_is_given_once_to_each_initiator(maps: Maps) -> None:
    maps.map(1, "tls:db", "read-write", lun=1)
    with pytest.raises(InUse, match="LUN 1 of initiator 'tls:db' is already used by volume 'v1'"):
        maps.map(2, "tls:db", "read-write", lun=1)
    maps.map(2, None, "read-write", lun=1)
    with pytest.raises(InUse, match="LUN 1 of the default map is already used by volume 'v2'"):
        maps.map(3, None, "read-write", lun=1)
    maps.map(1, "tls:db", "read-only", lun=1)
    assert len(maps.maps()) == 2


@pytest.mark.parametrize(
    ("initiator", "access", "lun", "sentence"),
    [
        ("", "read-write", None, "initiator ''"),
        ("x" * 257, "read-write", None, "does not have 1 to 256"),
        ("tls:a\nb", "read-write", None, "does not have 1 to 256 printable"),
        ("tls:db", "read-write", -1, "LUN -1 is outside 0 to 1023"),
        ("tls:db", "read-write", 1024, "LUN 1024 is outside 0 to 1023"),
        ("tls:db", "everything", None, "access 'everything' is not one of"),
    ],
)
def test_map_refuses_values_outside_their_rules(
    maps: Maps, initiator: str, access: Access, lun: int | None, sentence: str
) -> None:
    with pytest.raises(BadParameter, match=sentence):
        maps.map(1, initiator, access, lun)
    assert maps.maps() == []


def test_map_refuses_an_image_that_is_not_there(maps: Maps) -> None:
    with pytest.raises(VolumeNotFound, match="volume 9 does not exist"):
        maps.map(9, None, "read-write")


def test_initiators_are_remembered_with_their_last_time(maps: Maps) -> None:
    maps.seen("tls:db", 10.0)
    maps.seen("nbd:unix", 11.0)
    maps.seen("tls:db", 12.5)
    assert maps.initiators() == [Initiator("nbd:unix", None, 11.0), Initiator("tls:db", None, 12.5)]


def test_initiators_seen_are_bounded_and_named_ones_stay(
    maps: Maps, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever connects from many addresses must not grow the database without end."""
    monkeypatch.setattr(maps_module, "INITIATORS_MAX", 3)
    maps.seen("nbd:named", 1.0)
    table = access_tables.initiators
    with database.transaction() as connection:
        connection.execute(update(table).values(nickname="backup"))
    for number in range(10):
        maps.seen(f"nbd:192.0.2.{number}", 2.0 + number)
    assert {initiator.id for initiator in maps.initiators()} == {
        "nbd:named",
        "nbd:192.0.2.7",
        "nbd:192.0.2.8",
        "nbd:192.0.2.9",
    }


def test_an_initiator_is_no_trouble_where_nothing_can_be_written(database: Database, maps: Maps) -> None:
    """Hosts get in on a disk that is full or read-only, too."""
    with database.transaction() as connection:
        connection.exec_driver_sql("PRAGMA query_only=1")
    with capture_logs() as lines:
        maps.seen("nbd:127.0.0.1", 1.0)
    (line,) = lines
    assert (line["log_level"], line["initiator"]) == ("warning", "nbd:127.0.0.1")
    with database.transaction() as connection:
        connection.exec_driver_sql("PRAGMA query_only=0")
    maps.seen("nbd:127.0.0.1", 2.0)
    assert maps.initiators() == [Initiator("nbd:127.0.0.1", None, 2.0)]
