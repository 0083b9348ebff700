"""Peers and systems as the figures use them: each serves, is measured, and is gone afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import baselines, btrfs, fio, systems
from benchmarks.bench import Bench, Settings, write_random
from benchmarks.fio import Job
from benchmarks.processes import CannotMeasure
from benchmarks.synthetic import map_volumes
from offsite.units import GIB, MIB

SIZE_BYTES = 8 * MIB


@pytest.fixture
def bench(short_directory: Path) -> Bench:
    (short_directory / "sockets").mkdir()
    return Bench(Settings(repeat=1, quick=True), short_directory, short_directory / "sockets")


@pytest.fixture
def image(bench: Bench) -> Path:
    write_random(bench.directory / "image", SIZE_BYTES)
    return bench.directory / "image"


def count_writes(bench: Bench, uri: str) -> int:
    return fio.measure(Job("randwrite", 4096, 4, uri=uri, operations=100, flush=True), bench.directory).operations


@pytest.mark.needs("nbdkit", "qemu-nbd", "fio")
def test_nbdkit_and_qemu_serve_the_same_file(bench: Bench, image: Path) -> None:
    with baselines.nbdkit(bench, image, 4) as one, baselines.qemu_nbd(bench, image, "raw") as other:
        assert count_writes(bench, one) == count_writes(bench, other) == 100


@pytest.mark.needs("qemu-nbd", "qemu-img", "fio")
@pytest.mark.parametrize("options", ["", "extended_l2=on,cluster_size=128k"])
def test_an_overlay_takes_the_writes_and_leaves_its_base(bench: Bench, image: Path, options: str) -> None:
    before, overlay = image.read_bytes(), bench.directory / "overlay.qcow2"
    baselines.make_overlay(overlay, image, options)
    with baselines.qemu_nbd(bench, overlay, "qcow2") as uri:
        assert count_writes(bench, uri) == 100
    assert image.read_bytes() == before


def test_btrfs_without_root_says_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(btrfs, "require", lambda *_programs: None)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(CannotMeasure, match="needs root"), btrfs.pair(bench):
        pass


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.needs("btrfs", "mkfs.btrfs")
def test_btrfs_sends_all_then_what_changed_and_is_unmounted(bench: Bench) -> None:
    with btrfs.pair(bench) as pair:
        data = pair.volume / "data"
        write_random(data, SIZE_BYTES)
        assert pair.replicate("first") > 0
        with data.open("r+b") as file:
            file.write(b"changed")
        assert pair.replicate("second", "first") > 0
        assert (pair.destination / "second" / "data").read_bytes() == data.read_bytes()
        pair.forget("first")
        assert not (pair.destination / "first").exists()
    assert not pair.destination.is_mount() and not pair.source.is_mount()


@pytest.mark.slow
@pytest.mark.needs("fio")
def test_two_systems_replicate_a_volume_that_counts_as_written_in_full(bench: Bench, image: Path) -> None:
    """After the page tables were filled behind the systems' backs a run still sends only what was written."""
    with systems.two(bench) as (london, newark):
        london.import_volume("Small", image)
        london.create_volume("Large", GIB)
        for name in ("Small", "Large"):
            london.create_set(f"{name}Set", name, name)
        assert london.replicate("SmallSet").run.changed_bytes == SIZE_BYTES
        assert london.replicate("LargeSet").run.changed_bytes == 0
    for system in (london, newark):
        map_volumes(system.state, GIB)
    with systems.serving(london, newark):
        assert london.command("show", "volumes", "Large")["volumes"][0]["allocated-size-numeric"] == GIB
        assert newark.command("show", "volumes", "Large")["volumes"][0]["allocated-size-numeric"] == GIB
        assert count_writes(bench, london.uri("Large")) == 100
        timed = london.replicate("LargeSet")
        assert timed.run.changed_bytes == 100 * 4096
        assert 0 < timed.run.seconds < timed.seen_seconds
        assert london.replicate("LargeSet").run.changed_bytes == 0


@pytest.mark.slow
@pytest.mark.needs("fio")
def test_each_volume_of_a_group_is_mapped_with_its_own_base(bench: Bench) -> None:
    """Mixed up, a run of the group would find all of the others' pages changed."""
    with systems.two(bench) as (london, newark):
        for name in ("Ledger", "Journal"):
            london.create_volume(name, SIZE_BYTES)
        london.ask("create", "volume-group", "volumes", "Ledger,Journal", "Books")
        london.create_set("BooksSet", "Books", "Books")
        london.replicate("BooksSet")
    for system in (london, newark):
        map_volumes(system.state, SIZE_BYTES)
    with systems.serving(london, newark) as processes:
        assert [process.poll() for process in processes] == [None, None]
        london.ask("replicate", "BooksSet")
        assert london.wait_for_run("BooksSet").changed_bytes == 0
        assert count_writes(bench, london.uri("Journal")) == 100
        london.ask("replicate", "BooksSet")
        assert london.wait_for_run("BooksSet").changed_bytes == 100 * 4096


def test_what_a_system_refuses_cannot_be_measured(bench: Bench) -> None:
    with systems.one(bench) as london, pytest.raises(CannotMeasure, match=r"`show volumes` was refused: .*Nobody"):
        london.ask("show", "volumes", "Nobody")


def test_a_path_too_long_for_a_unix_socket_is_refused(bench: Bench) -> None:
    deep = Bench(bench.settings, bench.directory / ("d" * 100), bench.sockets)
    with pytest.raises(CannotMeasure, match="shorter path"), systems.one(deep):
        pass
