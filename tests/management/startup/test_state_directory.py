"""The state directory: one process has it, and what is foreign or damaged is refused, untouched."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from offsite.access.certificates import Authority
from offsite.clock import SystemClock
from offsite.errors import DoNotBelongTogether, StateDirectoryError
from offsite.events import ignore
from offsite.management.accounts.users import Users
from offsite.management.startup import first_start, state_directory
from offsite.pools.local.pool import LocalPool
from offsite.store.database import APPLICATION_ID, Database
from offsite.units import MIB
from tests.store.old_databases import make_older


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


def files(directory: Path) -> dict[str, object]:
    """As contents, but for the time of the directory itself: the index of a log comes and goes when it is read."""
    return {name: content for name, content in contents(directory).items() if name != "."}


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
    _foreign_database: "not of Offsite",
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


def _crash(state: Path) -> None:
    """Leaves the directory as a crash does: with what was committed last in the log only."""
    database = Database(state / "state.db")
    with database.transaction() as connection:
        connection.exec_driver_sql("UPDATE system SET name = 'Londinium'")
    log = (state / "state.db-wal").read_bytes()
    alone = (state / "state.db").read_bytes()
    database.close()
    (state / "state.db").write_bytes(alone)
    (state / "state.db-wal").write_bytes(log)
    (state / "state.db-wal").chmod(0o600)


def test_after_a_crash_the_log_decides_not_the_file_beside_it(state: Path) -> None:
    """Between two checkpoints the database file alone may look damaged."""
    with sqlite3.connect(state / "state.db") as connection:
        connection.execute("VACUUM")  # all of it is in the log
        log = (state / "state.db-wal").read_bytes()
    connection.close()
    (state / "state.db-wal").write_bytes(log)
    (state / "state.db-wal").chmod(0o600)
    _overwritten_database(state)
    before = files(state)
    state_directory.take(state).release()
    assert files(state) == before


def test_checks_are_done_after_a_crash_too(state: Path) -> None:
    """They once were left out then, and only came when the database had been written to."""
    for number, damage in enumerate((_cut_data, _without_data, _without_a_key)):
        copy = state.with_name(f"copy{number}")
        shutil.copytree(state, copy)
        _crash(copy)
        damage(copy)
        before = files(copy)
        with pytest.raises(StateDirectoryError, match=re.escape(DAMAGES[damage])):
            state_directory.take(copy)
        assert files(copy) == before


def test_a_log_and_a_database_of_different_times_are_refused_untouched(state: Path) -> None:
    """SQLite would play the one into the other, and make a mixture of both."""
    older = state.with_name("older")
    shutil.copytree(state, older)
    database = Database(state / "state.db")
    for name in ("Londinium", "Lundenwic"):
        database.checkpoint()
        with database.transaction() as connection:
            connection.exec_driver_sql("UPDATE system SET name = ?", (name,))
    database.close()
    _crash(state)
    whole = state.with_name("whole")
    shutil.copytree(state, whole)
    shutil.copy(older / "state.db", state / "state.db")
    before = files(state)
    with pytest.raises(DoNotBelongTogether, match=r"its log state.db-wal do not belong together"):
        state_directory.take(state)
    assert files(state) == before
    _crash(older)
    shutil.copy(older / "state.db-wal", whole / "state.db-wal")
    before = files(whole)
    with pytest.raises(DoNotBelongTogether, match="restore the whole state directory from one copy, not single files"):
        state_directory.take(whole)
    assert files(whole) == before


def test_a_log_whose_database_is_gone_is_not_thrown_away(state: Path) -> None:
    _crash(state)
    for path in list(state.iterdir()):
        if path.name not in ("state.db-wal", "lock"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = files(state)
    with pytest.raises(StateDirectoryError, match=r"state.db is missing or empty, but its log state.db-wal exists"):
        state_directory.take(state)
    assert files(state) == before


def test_a_first_start_that_was_cut_before_the_tables_were_made_is_begun_anew(tmp_path: Path) -> None:
    state = tmp_path / "state"
    directory = state_directory.take(state)
    with sqlite3.connect(directory.database_path) as connection:
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    directory.release()
    directory = state_directory.take(state)
    Database(directory.database_path).close()
    directory.release()


def test_two_pools_whose_files_were_swapped_are_refused_untouched(state: Path) -> None:
    database = Database(state / "state.db")
    LocalPool.create(database, "B", Path("pool-B.data"), 8 * MIB).close()
    database.close()
    (state / "pool-A.data").rename(state / "swap")
    (state / "pool-B.data").rename(state / "pool-A.data")
    (state / "swap").rename(state / "pool-B.data")
    before = files(state)
    with pytest.raises(DoNotBelongTogether, match=r"belongs to another pool: it is pool B.* and should be pool A"):
        state_directory.take(state)
    assert files(state) == before


# -- one process has it ------------------------------------------------------------------------------------------


def test_a_second_start_is_refused_though_the_lock_was_deleted(state: Path) -> None:
    taken = state_directory.take(state)
    (state / "lock").unlink()
    with pytest.raises(StateDirectoryError, match="is in use by process"):
        state_directory.take(state)
    link = state.with_name("link")
    link.symlink_to(state)
    with pytest.raises(StateDirectoryError, match="is in use by process"):
        state_directory.take(link)
    taken.release()


def test_a_second_directory_on_the_same_data_file_is_refused(state: Path) -> None:
    """A copy with hard links, say."""
    second = state.with_name("second")
    shutil.copytree(state, second)
    (second / "pool-A.data").unlink()
    (second / "pool-A.data").hardlink_to(state / "pool-A.data")
    taken = state_directory.take(state)
    before = contents(second)
    with pytest.raises(StateDirectoryError, match=r"pool-A.data is in use by another process"):
        state_directory.take(second)
    assert contents(second) == before
    taken.release()
    state_directory.take(second).release()


# -- nobody else may use it ------------------------------------------------------------------------------------------

OPEN_TO_OTHERS = [(".", 0o755), (".", 0o770), ("keys", 0o750), ("keys/ca-key.pem", 0o644), ("state.db", 0o640)]
OPEN_TO_OTHERS += [("pool-A.data", 0o604), ("first-password", 0o604), ("lock", 0o620)]


@pytest.mark.parametrize(("name", "mode"), OPEN_TO_OTHERS)
def test_what_others_may_use_is_refused(state: Path, name: str, mode: int) -> None:
    (state / name).touch()  # there is not always a first password
    (state / name).chmod(mode)
    before = contents(state)
    with pytest.raises(StateDirectoryError, match=f"mode {mode:04o}.*chmod -R go= {state}"):
        state_directory.take(state)
    assert contents(state) == before
    subprocess.run(f"chmod -R go= {state}", shell=True, check=True)
    state_directory.take(state).release()


@pytest.mark.root
@pytest.mark.parametrize("name", [".", "keys/system-key.pem", "state.db", "pool-A.data"])
@pytest.mark.parametrize("uid", [1, 54321])
def test_what_belongs_to_somebody_else_is_refused(state: Path, name: str, uid: int) -> None:
    os.chown(state / name, uid, -1)
    before = contents(state)
    with pytest.raises(StateDirectoryError, match=f"belongs to user .*chown -R 0 {state}"):
        state_directory.take(state)
    assert contents(state) == before


@pytest.mark.root
def test_an_empty_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    os.chown(tmp_path / "state", 1, -1)
    with pytest.raises(StateDirectoryError, match="belongs to user"):
        state_directory.take(tmp_path / "state")
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o755
    assert list((tmp_path / "state").iterdir()) == []


def test_all_that_is_made_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        state = tmp_path / "state"
        directory = state_directory.take(state)
        database = Database(directory.database_path)
        users = Users(database, ignore, SystemClock())
        first_start.start_first(
            database, users, SystemClock(), "London", 8 * MIB, "open sesame", lambda _password: None
        )
        Authority(directory.keys_path, "London", ["127.0.0.1"])
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [state, *state.rglob("*")]}
        assert {"state.db", "state.db-wal", "state.db-shm", "pool-A.data", "lock", "ca-key.pem"} <= modes.keys()
        assert {name for name, mode in modes.items() if mode & 0o077} == set()
        database.close()
        directory.release()
    finally:
        os.umask(before)


def test_a_database_of_an_older_version_is_made_private(tmp_path: Path) -> None:
    """It had the mode that the umask gave it."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    make_older(state / "state.db", "0004")
    (state / "state.db").chmod(0o644)
    directory = state_directory.take(state)
    Database(directory.database_path).close()
    directory.release()
    assert stat.S_IMODE((state / "state.db").stat().st_mode) == 0o600


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
