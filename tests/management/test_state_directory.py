"""The state directory: one process has it, and what is foreign or damaged is refused, untouched."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from offsite.access.certificates import Authority
from offsite.clock import SystemClock
from offsite.errors import StateDirectoryError
from offsite.events import ignore
from offsite.management import first_start, state_directory
from offsite.management.users import Users
from offsite.store.database import Database
from offsite.units import MIB


def contents(directory: Path) -> dict[str, object]:
    """Every byte, mode and time of modification below a directory."""
    return {
        str(path.relative_to(directory)): (
            path.stat().st_mode,
            path.stat().st_mtime_ns,
            path.is_file() and path.read_bytes(),
        )
        for path in [directory, *directory.rglob("*")]
    }


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory after its first start and a clean stop."""
    path = tmp_path_factory.mktemp("template") / "state"
    directory = state_directory.take(path)
    database = Database(directory.database_path)
    users = Users(database, ignore, SystemClock())
    first_start.start_first(database, users, SystemClock(), "London", 8 * MIB, "open sesame", lambda _password: None)
    Authority(directory.keys_path, "London", ["127.0.0.1"])
    database.close()
    directory.release()
    return path


@pytest.fixture
def state(template: Path, tmp_path: Path) -> Path:
    path = tmp_path / "state"
    shutil.copytree(template, path)
    path.chmod(0o700)
    return path


def test_a_new_directory_is_private(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir(mode=0o755)
    for path in (tmp_path / "new", there):
        state_directory.take(path).release()
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert stat.S_IMODE((path / "lock").stat().st_mode) == 0o600


def test_one_that_is_ours_is_taken_again_and_again(state: Path) -> None:
    for _ in range(2):
        state_directory.take(state).release()


def test_a_second_process_is_refused_and_told_which_has_it(state: Path) -> None:
    taken = state_directory.take(state)
    taken.sign()
    before = contents(state)
    with pytest.raises(StateDirectoryError, match=f"{state} is in use by process {os.getpid()}"):
        state_directory.take(state)
    assert contents(state) == before
    taken.release()
    state_directory.take(state).release()


def test_a_first_start_that_was_cut_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.mkdir()
    for name in ("lock", "state.db", "state.db-wal"):
        (path / name).touch()
    directory = state_directory.take(path)
    Database(directory.database_path).close()
    directory.release()


def _file_elsewhere(state: Path) -> None:
    shutil.rmtree(state)
    state.write_text("a file")


def _foreign_files(state: Path) -> None:
    shutil.rmtree(state)
    state.mkdir()
    (state / "thesis.tex").write_text("years of work")


def _without_database(state: Path) -> None:
    (state / "state.db").unlink()


def _empty_database(state: Path) -> None:
    os.truncate(state / "state.db", 0)


def _not_a_database(state: Path) -> None:
    (state / "state.db").write_bytes(os.urandom(8192))


def _foreign_database(state: Path) -> None:
    (state / "state.db").unlink()
    connection = sqlite3.connect(state / "state.db")
    connection.execute("CREATE TABLE songs (title)")
    connection.commit()
    connection.close()


def _cut_database(state: Path) -> None:
    os.truncate(state / "state.db", (state / "state.db").stat().st_size // 2)


def _overwritten_database(state: Path) -> None:
    with (state / "state.db").open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(32768))


def _without_data(state: Path) -> None:
    (state / "pool-A.data").unlink()


def _cut_data(state: Path) -> None:
    os.truncate(state / "pool-A.data", 4 * MIB)


def _without_keys(state: Path) -> None:
    shutil.rmtree(state / "keys")


def _without_a_key(state: Path) -> None:
    (state / "keys" / "ca-key.pem").unlink()


DAMAGES: dict[Callable[[Path], None], str] = {
    _file_elsewhere: "is not a directory",
    _foreign_files: "is not a state directory: it has no state.db, but thesis.tex",
    _without_database: "has no state.db",
    _empty_database: "state.db is not a SQLite database",
    _not_a_database: "state.db is not a SQLite database",
    _foreign_database: "not one of Offsite",
    _cut_database: "state.db is damaged",
    _overwritten_database: "state.db is damaged",
    _without_data: "pool-A.data, the data of pool A, is missing",
    _cut_data: "has 4 MiB and should have 8 MiB",
    _without_keys: "keys/ca.pem is missing",
    _without_a_key: "keys/ca-key.pem is missing",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
def test_what_is_foreign_or_damaged_is_refused_and_not_a_byte_of_it_changes(
    state: Path, damage: Callable[[Path], None]
) -> None:
    damage(state)
    before = contents(state)
    with pytest.raises(StateDirectoryError) as refusal:
        state_directory.take(state)
    assert DAMAGES[damage] in str(refusal.value)
    assert contents(state) == before


def test_after_a_crash_the_journal_decides_not_the_file_beside_it(state: Path) -> None:
    """Between two checkpoints the database file alone may look damaged."""
    (state / "state.db-wal").write_bytes(b"not empty")
    _overwritten_database(state)
    state_directory.take(state).release()


def test_keys_that_are_missing_are_not_made_anew_after_a_crash_either(state: Path) -> None:
    """Peers and hosts know the system by them."""
    with pytest.raises(StateDirectoryError, match="is missing"):
        state_directory.check_keys(state / "not there")
    state_directory.check_keys(state)


def test_keys_may_be_missing_when_they_are_to_be_made_anew(state: Path) -> None:
    _without_keys(state)
    state_directory.take(state, keys_may_be_missing=True).release()
    with pytest.raises(StateDirectoryError, match="or start once with --new-keys"):
        state_directory.take(state)


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StateDirectoryError, match="No such file"):
        state_directory.take(tmp_path / "not there" / "state")


def test_a_lock_that_is_a_link_is_refused(state: Path, tmp_path: Path) -> None:
    (state / "lock").unlink()
    (state / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateDirectoryError, match="cannot be used"):
        state_directory.take(state)
    assert not (tmp_path / "elsewhere").exists()
