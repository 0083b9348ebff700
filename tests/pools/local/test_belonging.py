"""A data file and a database that do not belong together are refused, and nothing of either changes."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from offsite.errors import RESTORE_WHOLE, DoNotBelongTogether, InUse, StateDirectoryError
from offsite.pools.local import creation
from offsite.pools.local.backend import LocalBackend
from offsite.pools.local.header import Generation, Header
from offsite.pools.local.page_store import PageStore
from offsite.pools.local.pool import LocalPool
from offsite.pools.protocol import Create, Delete
from offsite.store.database import Database
from tests.pools.backends import write
from tests.pools.pool_bench import PAGE, Bench
from tests.pools.pool_files import copy_sparse
from tests.pools.pool_hosts import check_counts, check_free_pages_are_holes, read
from tests.store.old_databases import make_older

DATABASE = ("state.db", "state.db-wal")
DATA = ("pool-A.data",)


@pytest.fixture
def life(bench: Bench) -> Life:
    return Life(bench)


class Life:
    """A pool with a volume, in which each write is of another byte, so that what is older can be told."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.pool = bench.make()
        self.volume = self.pool.apply([Create("v", 64 * PAGE)])[0].id
        self.writes = 0

    def write(self) -> None:
        self.writes += 1
        write(self.pool, self.volume, self.writes % 64 * PAGE, bytes([self.writes]) * PAGE)
        self.pool.flush()

    def stop(self) -> None:
        """In good order, with the database."""
        self.pool.close()
        self.bench.database.close()
        self.bench.pools.clear()

    def start(self) -> None:
        self.bench.database = Database(self.bench.directory / "state.db")
        self.pool = LocalPool.load(self.bench.database, "A")
        self.bench.pools.append(self.pool)

    def delete(self) -> None:
        """As far as a deletion got when power failed."""
        self.pool.apply([Delete(self.volume)])
        LocalBackend().destroy(self.bench.database, self.pool.id)
        self.pool.abandon()
        self.bench.pools.clear()

    def copy(self, name: str) -> Path:
        """What a crash, or a copy of the running system, would leave."""
        copy_sparse(self.bench.directory, self.bench.directory / name)
        return self.bench.directory / name


def mixed(newer: Path, older: Path, files: tuple[str, ...]) -> Path:
    """`newer`, with some files of `older`; one that is not there then goes."""
    directory = newer.with_name(f"{newer.name}-with-{older.name}-{files[0]}")
    copy_sparse(newer, directory)
    for name in files:
        (directory / name).unlink(missing_ok=True)
        if (older / name).exists():
            shutil.copy(older / name, directory / name)
    return directory


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir() if not file.name.endswith("-shm")}


def refusal(directory: Path) -> str:
    """Of a start in this directory, which has not changed anything."""
    before = contents(directory)
    with pytest.raises(DoNotBelongTogether) as refused:
        database = Database(directory / "state.db")
        try:
            LocalPool.load(database, "A").close()
        finally:
            # As the daemon, which looks at the pools before it opens the database to write: it must not play the log.
            database._writer.close()
            database._engine.dispose()
    assert RESTORE_WHOLE in str(refused.value)
    after = contents(directory)
    assert after["pool-A.data"] == before["pool-A.data"]
    return str(refused.value)


def test_the_database_of_yesterday_and_the_data_of_today(life: Life) -> None:
    life.write()
    life.stop()
    yesterday = life.copy("yesterday")
    life.start()
    life.stop()
    today = life.copy("today")
    assert "the database is older" in refusal(mixed(today, yesterday, DATABASE))
    assert "is older than the database" in refusal(mixed(today, yesterday, DATA))


def test_a_copy_from_within_the_same_start(life: Life) -> None:
    """Its generation is renewed when the log of the database was written back, and at the end."""
    life.write()
    first = life.copy("first")
    life.bench.database.checkpoint()
    life.write()
    life.write()
    second = life.copy("second")
    assert "the database is older" in refusal(mixed(second, first, DATABASE))
    life.bench.database.checkpoint()
    life.write()
    life.write()
    third = life.copy("third")
    assert "is older than the database" in refusal(mixed(third, first, DATA))
    life.stop()
    stopped = life.copy("stopped")
    assert "the database is older" in refusal(mixed(stopped, third, DATABASE))
    for whole in (first, second, third, stopped):
        check_starts(whole)


def check_starts(directory: Path) -> None:
    database = Database(directory / "state.db")
    pool = LocalPool.load(database, "A")
    check_counts(pool)
    pool.close()
    database.close()


def test_a_log_that_was_deleted_after_a_crash(life: Life) -> None:
    """With it, transactions are gone that the data file has moved on from."""
    life.bench.database.checkpoint()
    life.write()
    crashed = life.copy("crashed")
    check_starts(life.copy("whole"))
    (crashed / "state.db-wal").unlink()
    assert "the database is older" in refusal(crashed)


def test_a_log_that_was_played_by_another_program_is_no_loss(life: Life) -> None:
    """As `sqlite3 state.db` does when it ends."""
    life.bench.database.checkpoint()
    life.write()
    crashed = life.copy("crashed")
    Database(crashed / "state.db").close()
    assert not (crashed / "state.db-wal").exists()
    check_starts(crashed)


def test_two_copies_that_both_were_started(life: Life) -> None:
    life.stop()
    one, other = life.copy("one"), life.copy("other")
    check_starts(one)
    check_starts(other)
    assert "another copy" in refusal(mixed(one, other, DATA))
    assert "another copy" in refusal(mixed(one, other, DATABASE))


def test_a_whole_copy_starts_also_one_without_holes(life: Life) -> None:
    life.write()
    life.stop()
    copy = life.copy("copy")
    data = (copy / "pool-A.data").read_bytes()
    (copy / "pool-A.data").unlink()
    (copy / "pool-A.data").write_bytes(data)
    database = Database(copy / "state.db")
    pool = LocalPool.load(database, "A")
    assert read(pool, life.volume, PAGE, PAGE) == b"\1" * PAGE
    check_free_pages_are_holes(pool)
    pool.close()
    database.close()


def test_the_data_of_another_system_of_the_same_pool(life: Life) -> None:
    life.stop()
    with Database(life.bench.directory / "state.db").transaction() as connection:
        connection.exec_driver_sql(f"INSERT INTO system VALUES (1, '{'12' * 16}', 'London', 0)")
    life.start()
    life.stop()
    with Database(life.bench.directory / "state.db").transaction() as connection:
        connection.exec_driver_sql(f"UPDATE system SET uuid = '{'34' * 16}'")
    assert "it is pool A of system London" in refusal(life.bench.directory)


# -- in the middle of it -------------------------------------------------------------------------------------------


def headers(pool: LocalPool) -> Header:
    header = Header.unpacked(os.pread(pool.store.descriptor, 4096, 0))
    assert isinstance(header, Header)
    return header


def test_a_header_that_cannot_be_written_is_tried_again_and_fails_no_flush(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, database = life.pool, life.bench.database
    before = headers(pool).generation

    def fails(_store: PageStore, _header: Header) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(PageStore, "write_header", fails)
        database.checkpoint()
        life.write()
        assert headers(pool).generation == before
        copies = [life.copy("before")]
        database.checkpoint()
        life.write()  # the database must not forget the generation that the header still has
        copies.append(life.copy("between"))
    life.write()
    assert headers(pool).generation != before
    database.checkpoint()
    life.write()
    copies.append(life.copy("after"))
    for copy in copies:
        check_starts(copy)


def test_a_stop_on_a_disk_that_refuses_leaves_a_pair(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    life.pool._report = lambda _kind, message: told.append(message)

    def fails() -> object:
        raise StateDirectoryError("state.db cannot be used: disk full")

    with monkeypatch.context() as patch:
        life.pool.flush()
        patch.setattr(life.bench.database, "transaction", fails)
        life.pool.close()
    life.bench.pools.clear()
    assert "disk full" in told[0]
    check_starts(life.copy("stopped"))


# -- who has it ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [Path.hardlink_to, Path.symlink_to])
def test_a_data_file_that_is_in_use_is_refused_by_any_name(life: Life, how: Callable[[Path, Path], None]) -> None:
    """A second system in another directory, on the same file."""
    life.write()
    second = life.copy("second")
    (second / "pool-A.data").unlink()
    how(second / "pool-A.data", life.bench.directory / "pool-A.data")
    before = (second / "pool-A.data").read_bytes()
    database = Database(second / "state.db")
    with pytest.raises(StateDirectoryError, match="is in use by another process"):
        LocalPool.load(database, "A")
    database.close()
    assert (second / "pool-A.data").read_bytes() == before


def test_a_left_over_file_that_somebody_has_is_not_made_anew(bench: Bench) -> None:
    header = Header(bytes(16), PAGE, 64 * PAGE, Generation.first())
    store = PageStore.create(bench.directory / "left", header)
    with pytest.raises(StateDirectoryError, match="exists already"):
        LocalPool.create(bench.database, "L", Path("left"), 64 * PAGE, PAGE)
    store.close()
    (bench.directory / "link").symlink_to("left")
    with pytest.raises(StateDirectoryError, match="exists already"):
        LocalPool.create(bench.database, "L", Path("link"), 64 * PAGE, PAGE)
    assert (bench.directory / "link").is_symlink()


def test_what_is_no_file_is_refused(life: Life) -> None:
    life.stop()
    data = life.bench.directory / "pool-A.data"
    data.unlink()
    data.symlink_to("/dev/null")
    database = Database(life.bench.directory / "state.db")
    with pytest.raises(StateDirectoryError, match="neither a file nor a block device"):
        LocalPool.load(database, "A")
    database.close()


# -- older formats ---------------------------------------------------------------------------------------------------


def old_directory(directory: Path) -> None:
    """As the version before generations left it: revision 0004, data file version 1, page 1 in use."""
    directory.mkdir()
    make_older(directory / "state.db", "0004")
    uuid = bytes(range(16))
    with sqlite3.connect(directory / "state.db") as old:
        thresholds = "50, 75, 90"
        old.execute(
            f"INSERT INTO pools VALUES (1, '{uuid.hex()}', 'A', 'pool-A.data', {PAGE}, {64 * PAGE}, 1, {thresholds}, 0)"
        )
        old.execute(
            "INSERT INTO images (id, uuid, pool_id, name, kind, size_bytes, created_at, nodes) "
            "VALUES (?, 'aa', 1, 'v', 'volume', ?, 0, ?)",
            ((1 << 32) + 1, 4 * PAGE, struct.pack("<QQ", 0, (1 << 48) + 1)),
        )
        old.execute(
            "INSERT INTO nodes VALUES (?, ?)", ((1 << 48) + 1, struct.pack("<Q", (1 << 48) + 1).ljust(8192, b"\0"))
        )
        old.execute("INSERT INTO leaves VALUES (?, ?)", ((1 << 48) + 1, struct.pack("<I", 1).ljust(1024, b"\0")))
    old.close()
    header = struct.pack("<16s16sQQ", b"OFFSITE POOL\0\0\0\1", uuid, PAGE, 64 * PAGE)
    with (directory / "pool-A.data").open("wb") as file:
        file.write(header.ljust(PAGE, b"\0") + b"v" * PAGE)
        file.truncate(64 * PAGE)


def test_a_pool_of_the_format_before_is_taken_over(tmp_path: Path) -> None:
    old_directory(tmp_path / "old")
    copy_sparse(tmp_path / "old", tmp_path / "new")
    database = Database(tmp_path / "new" / "state.db")
    for _ in range(2):
        pool = LocalPool.load(database, "A")
        assert read(pool, (1 << 32) + 1, 0, 2 * PAGE) == b"v" * PAGE + bytes(PAGE)
        assert headers(pool).generation is not None
        pool.close()
    database.close()
    shutil.copy(tmp_path / "old" / "pool-A.data", tmp_path / "new" / "pool-A.data")
    assert "is older than the database" in refusal(tmp_path / "new")


def test_an_old_database_with_data_of_the_new_format(tmp_path: Path) -> None:
    old_directory(tmp_path / "old")
    copy_sparse(tmp_path / "old", tmp_path / "new")
    check_starts(tmp_path / "new")
    assert "the database is older" in refusal(mixed(tmp_path / "new", tmp_path / "old", DATABASE))


def test_a_change_of_format_that_was_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database has the first generation, and the file still is of version 1."""
    old_directory(tmp_path / "old")
    database = Database(tmp_path / "old" / "state.db")

    def cut(_store: PageStore, _header: Header) -> None:
        raise OSError(errno.EIO, "cut")

    with monkeypatch.context() as patch:
        patch.setattr(PageStore, "write_header", cut)
        with pytest.raises(StateDirectoryError, match="cut"):
            LocalPool.load(database, "A")
    database.close()
    check_starts(tmp_path / "old")


# -- deletion --------------------------------------------------------------------------------------------------------


def test_a_deletion_that_was_cut_is_completed_and_its_name_is_free(life: Life) -> None:
    bench = life.bench
    life.write()
    life.delete()
    assert (bench.directory / "pool-A.data").exists()
    assert creation.clear_remains(bench.database) == []
    assert not (bench.directory / "pool-A.data").exists()
    bench.make("A")


def test_remains_are_removed_when_the_name_is_wanted(life: Life) -> None:
    life.write()
    life.delete()
    assert life.bench.make("A").images() == []


def test_a_file_that_took_the_place_of_a_deleted_pool_is_not_removed(life: Life) -> None:
    life.delete()
    path = life.bench.directory / "pool-A.data"
    path.write_text("somebody's")
    assert creation.clear_remains(life.bench.database) == []
    assert path.read_text() == "somebody's"


def test_remains_that_cannot_be_removed_are_told_and_tried_again(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_path: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    life.delete()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fails)
        (told,) = creation.clear_remains(life.bench.database)
    assert "Read-only file system" in told
    assert creation.clear_remains(life.bench.database) == []
    assert not (life.bench.directory / "pool-A.data").exists()


def test_a_pool_in_which_an_image_is_made_meanwhile_is_not_deleted(life: Life) -> None:
    with pytest.raises(InUse, match="pool A has volumes"):
        LocalBackend().destroy(life.bench.database, life.pool.id)
    life.write()
    check_counts(life.pool)
