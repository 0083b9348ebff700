"""Commands about pools."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from offsite.errors import (
    BadParameter,
    DeviceNotEmpty,
    InUse,
    NameInUse,
    NotAllowed,
    ObjectNotFound,
    OffsiteError,
    StateDirectoryError,
)
from offsite.management.command_table.reply import Question, Reply
from offsite.management.commands import pools
from offsite.pools.local.pool import LocalPool
from offsite.units import MIB
from tests.management.management_bench import Bench
from tests.systems import run

REFUSED: list[tuple[str, type[OffsiteError], list[str]]] = [
    ("create pool size 16MiB A", NameInUse, ["A"]),
    ("create pool size 16MiB ../B", BadParameter, ["'../B'", "letters"]),
    ("create pool size 16MiB B/C", BadParameter, ["'B/C'"]),
    ("create pool B", BadParameter, ["either size"]),
    ("create pool size 16MiB device /dev/null B", BadParameter, ["not both"]),
    ("create pool device /dev/null B", BadParameter, ["'/dev/null'", "block device"]),
    ("create pool device sda B", BadParameter, ["'sda'", "absolute"]),
    ("create pool size 16MiB page-size 5KiB B", BadParameter, ["page-size 5120", "4 KiB"]),
    ("create pool size 16MiB page-size 2MiB B", BadParameter, ["page-size 2097152", "1 MiB"]),
    ("create pool size 16KiB B", BadParameter, ["16384", "pages"]),
    ("set pool low-threshold 80% middle-threshold 70% A", BadParameter, ["low 80 %", "middle 70 %"]),
    ("set pool high-threshold 101% A", BadParameter, ["high-threshold", "101%"]),
    ("set pool overcommit maybe A", BadParameter, ["overcommit", "'maybe'"]),
    ("set pool overcommit enabled B", ObjectNotFound, ["'B'"]),
    ("set pool overcommit disabled A", InUse, ["overcommit of pool A cannot be disabled", "100 MiB"]),
    ("delete pools A", InUse, ["pool A has 1 volumes"]),
    ("delete pools B", ObjectNotFound, ["'B'"]),
    ("show pools B", ObjectNotFound, ["'B'"]),
]


def test_each_refusal_names_the_value_and_the_rule_and_changes_nothing(bench: Bench) -> None:
    bench.do("create volume pool A size 100MiB Sales")
    for line, error, words in REFUSED:
        bench.refused(line, error, *words)


def test_a_pool_lives_from_create_to_delete(bench: Bench) -> None:
    bench.do("create pool size 16MiB page-size 4KiB no-overcommit B")
    path = bench.system.state_directory / "pool-B.data"
    assert path.stat().st_size == 16 * MIB
    (row,) = bench.rows("show pools B")
    assert (row["page-size"], row["overcommit"], row["volumes"], row["snapshots"]) == (4096, False, 0, 0)
    bench.do("create volume pool B size 1MiB Sales")
    bench.do("create snapshots volumes Sales Monday")
    (row,) = bench.rows("show pools B")
    assert (row["volumes"], row["snapshots"], row["provisioned-size"]) == (1, 1, MIB)
    bench.do("delete snapshot Monday")
    bench.do("delete volumes Sales")
    bench.do("delete pools B")
    assert not path.exists()
    assert bench.names("show pools") == ["A"]
    bench.do("create pool size 16MiB B")


def test_settings_are_there_after_the_next_start(bench: Bench) -> None:
    bench.do("set pool low-threshold 10% high-threshold 95% overcommit disabled A")
    bench.system.pools.pop("A").close()
    bench.system.pools["A"] = LocalPool.load(bench.system.database, "A", bench.system.events.report)
    (row,) = bench.rows("show pools")
    assert (row["low-threshold"], row["middle-threshold"], row["high-threshold"]) == (10.0, 75.0, 95.0)
    assert row["overcommit"] is False


def test_thresholds_that_were_set_are_told_when_crossed(bench: Bench) -> None:
    bench.do("set pool low-threshold 1% middle-threshold 50% A")
    bench.do("create volume pool A size 8MiB Sales")
    bench.write("Sales", 0, b"x" * 2 * MIB)
    assert any("over its low threshold" in str(row["message"]) for row in bench.rows("show events"))


def test_a_file_in_the_way_is_not_overwritten(bench: Bench) -> None:
    path = bench.system.state_directory / "pool-B.data"
    path.write_text("somebody's")
    bench.refused("create pool size 16MiB B", StateDirectoryError, "pool-B.data exists already")
    assert path.read_text() == "somebody's"


def test_pools_have_a_limit(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "POOLS_MAX", 1)
    bench.refused("create pool size 16MiB B", InUse, "1 pools")


def test_a_pool_that_is_in_use_is_not_deleted_even_when_told_to(bench: Bench) -> None:
    bench.do("create volume pool A size 1MiB Sales")
    bench.refused("delete pools noprompt A", InUse, "delete them first")
    bench.refused("delete pools prompt no A", OffsiteError, "delete them first")
    bench.do("delete volumes Sales")
    bench.refused("delete pools prompt no A", NotAllowed, "Delete pool A?")


# -- on a device -----------------------------------------------------------------------------------------------------


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    backing = tmp_path / "backing"
    with backing.open("wb") as file:
        file.truncate(128 * MIB)
    name = run("losetup", "--find", "--show", str(backing)).strip()
    yield name
    run("losetup", "--detach", name)


@pytest.mark.root
@pytest.mark.needs("losetup", "mkfs.btrfs", "wipefs")
def test_a_device_that_holds_something_needs_a_word_and_an_answer(bench: Bench, device: str) -> None:
    run("mkfs.btrfs", "-q", device)
    bench.refused(f"create pool device {device} B", DeviceNotEmpty, "btrfs", "give overwrite")
    question = bench.answer(f"create pool device {device} overwrite B", asks=True)
    assert isinstance(question, Question)
    assert question.text.startswith(f"Create pool B on {device}? The device has btrfs")
    assert "all of this will be lost" in question.text
    bench.refused(f"create pool device {device} overwrite prompt no B", NotAllowed, "btrfs")
    bench.refused("create pool size 16MiB overwrite B", BadParameter, "overwrite requires device")
    assert "btrfs" in run("wipefs", "--no-act", device)
    bench.do(f"create pool device {device} overwrite noprompt B")
    bench.refused(f"create pool device {device} overwrite C", InUse, "is in use")
    bench.do("create volume pool B size 1MiB Sales")
    bench.do("delete volumes Sales")
    bench.do("delete pools B")
    assert not run("wipefs", "--no-act", device)
    bench.do(f"create pool device {device} B")  # what was a pool is empty again
    bench.do("delete pools B")
    assert isinstance(bench.answer(f"create pool device {device} overwrite C", asks=True), Reply)  # nothing to ask


def test_a_file_that_cannot_be_removed_is_told_and_the_pool_is_gone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_path: Path, missing_ok: bool = False) -> None:
        del missing_ok
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    bench.do("create pool size 16MiB B")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fails)
        bench.do("delete pools B")
    assert bench.names("show pools") == ["A"]
    assert any("pool-B.data, the file of a deleted pool" in str(row["message"]) for row in bench.rows("show events"))
    bench.do("create pool size 32MiB B")  # and its name is free
    assert (bench.system.state_directory / "pool-B.data").stat().st_size == 32 * MIB
