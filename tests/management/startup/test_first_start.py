"""The first start: what a new system gets, whole, however often the start was cut before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from offsite.clock import SystemClock
from offsite.errors import BadParameter, StateDirectoryError
from offsite.events import ignore
from offsite.management.accounts.users import Users
from offsite.management.command_table.command import Role
from offsite.management.startup import first_start
from offsite.management.startup.first_start import Identity
from offsite.pools import registry
from offsite.pools.local import room
from offsite.pools.local.pool import LocalPool
from offsite.store.database import Database
from offsite.store.free_space import FileSystem
from offsite.units import GIB, MIB
from tests.management.management_bench import CHEAP_HASHER, new_database


class Place:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "state.db").write_bytes(new_database())
        self.database = Database(directory / "state.db")
        self.users = Users(self.database, ignore, SystemClock(), CHEAP_HASHER)

    def start(
        self, name: str = "London", size: int | None = 8 * MIB, password: str | None = None
    ) -> tuple[Identity, str]:
        told = [password or ""]
        made = first_start.start_first(self.database, self.users, SystemClock(), name, size, password, told.append)
        return made, told[-1]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.database.close()


def test_a_new_system_has_an_identity_a_pool_and_a_user(place: Place) -> None:
    assert first_start.identity(place.database, "London") is None
    identity, password = place.start()
    assert first_start.identity(place.database, None) == identity
    assert identity.name == "London"
    assert place.users.authenticate("manage", password, "here").role is Role.MANAGE
    pool = LocalPool.load(place.database, "A")
    assert pool.capacity().size_bytes == 8 * MIB - 16384
    pool.close()


def test_passwords_that_are_made_up_differ(tmp_path: Path) -> None:
    passwords = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        place = Place(tmp_path / name)
        passwords.add(place.start()[1])
        place.database.close()
    assert len(passwords) == 2
    assert all(len(password) >= 16 for password in passwords)


def test_another_name_renames_the_system_and_no_name_keeps_it(place: Place) -> None:
    identity, _ = place.start()
    assert first_start.identity(place.database, "Paris") == Identity(identity.uuid, "Paris")
    assert first_start.identity(place.database, None) == Identity(identity.uuid, "Paris")
    with pytest.raises(BadParameter, match="system name"):
        first_start.identity(place.database, "a,b")


@pytest.mark.parametrize(
    ("parameters", "rule"),
    [
        ({"name": "a,b"}, "system name"),
        ({"password": "short"}, "8 to 256"),
        ({"size": 1}, "1 MiB to 32 TiB"),
        ({"size": 1 << 60}, "1 MiB to 32 TiB"),
    ],
)
def test_a_bad_parameter_leaves_nothing(place: Place, parameters: dict[str, object], rule: str) -> None:
    with pytest.raises(BadParameter, match=rule):
        place.start(**parameters)  # type: ignore[arg-type]
    assert not (place.directory / "pool-A.data").exists()
    assert place.users.all() == []
    assert first_start.identity(place.database, None) is None


def test_a_data_file_that_the_database_does_not_know_is_not_removed(place: Place) -> None:
    """A database was lost, or a new one was put in its place: the volumes are in that file."""
    (place.directory / "pool-A.data").write_bytes(b"OFFSITE POOL".ljust(8192, b"x"))
    with pytest.raises(StateDirectoryError, match="exists already"):
        place.start()
    assert (place.directory / "pool-A.data").read_bytes() == b"OFFSITE POOL".ljust(8192, b"x")


def test_a_first_start_that_was_cut_is_made_good_by_the_next(place: Place) -> None:
    (place.directory / "pool-A.data").write_bytes(bytes(100))  # cut before the header was there
    place.start()
    pool = LocalPool.load(place.database, "A")
    assert pool.images() == []
    pool.close()
    assert (place.directory / "pool-A.data").read_bytes()[:12] == b"OFFSITE POOL"
    place.database.close()


def test_a_first_start_that_was_cut_after_the_pool_keeps_the_pool(place: Place) -> None:
    LocalPool.create(place.database, "A", Path("pool-A.data"), 4 * MIB).close()
    place.start()
    pool = LocalPool.load(place.database, "A")
    assert pool.capacity().size_bytes == 4 * MIB - 16384
    pool.close()


@pytest.mark.parametrize(
    ("size", "free", "expected"),
    [
        (100 * GIB, 6 * GIB, 5 * GIB),  # 6 GiB without 64 + 16 MiB and a sixteenth are 5.55
        (300 * MIB, 280 * MIB, 212 * MIB),  # 280 MiB without 37.5 + 16 MiB and a sixteenth are 212.3
        (300 * MIB, 20 * MIB, 0),  # refused, with the sizes that are allowed
        (1 << 60, 1 << 60, first_start.POOL_BYTES_MAX),
    ],
)
def test_by_default_the_pool_leaves_room_for_the_database_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, free: int, expected: int
) -> None:
    monkeypatch.setattr(room, "file_system", lambda _path: FileSystem(size, free, is_read_only=False))
    assert registry.backend().first_size_bytes(tmp_path) == expected
