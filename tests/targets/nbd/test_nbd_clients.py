"""The programs that people use NBD with: libnbd's tools, qemu's and fio."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from offsite.pools.protocol import Delete, ImageInfo, Snapshot
from offsite.units import MIB
from tests.targets.nbd.nbd_bench import PAGE, NbdBench


def run(*command: str | Path, fails: bool = False) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def qemu_uri(bench: NbdBench, name: str = "Sales") -> str:
    return f"nbd+unix:///{name}?socket={bench.socket_path}"


@pytest.fixture
def image(bench: NbdBench) -> ImageInfo:
    image = bench.volume(size_bytes=32 * MIB)
    bench.serve()
    return image


def write(bench: NbdBench, image: ImageInfo, offset: int, data: bytes) -> None:
    opened = bench.pool.open(image.id)
    opened.begin()
    opened.write(offset, memoryview(data))
    opened.end()
    opened.close()


@pytest.mark.needs("nbdinfo")
def test_nbdinfo_lists_what_is_mapped(bench: NbdBench, image: ImageInfo) -> None:
    (snapshot,) = bench.pool.apply([Snapshot(image.id, "Sales-monday")])
    bench.maps.map(snapshot.id, None, "read-only")
    unmapped = bench.volume("secret")
    bench.maps.unmap(unmapped.id, None)
    listed = json.loads(run("nbdinfo", "--list", "--json", f"nbd+unix://?socket={bench.socket_path}"))
    exports: dict[str, Any] = {export["export-name"]: export for export in listed["exports"]}
    assert set(exports) == {"Sales", "Sales-monday"}
    assert exports["Sales"]["description"] == "volume of 32 MiB in pool A, read-write"
    assert exports["Sales"]["is_read_only"] is False
    assert exports["Sales-monday"]["is_read_only"] is True
    run("nbdinfo", bench.uri("secret"), fails=True)


@pytest.mark.needs("nbdinfo")
def test_nbdinfo_sees_all_that_is_served(bench: NbdBench, image: ImageInfo) -> None:
    told = json.loads(run("nbdinfo", "--json", bench.uri()))
    assert told["protocol"] == "newstyle-fixed"
    assert told["structured"] is True
    (export,) = told["exports"]
    assert export["export-size"] == image.size_bytes
    assert export["contexts"] == ["base:allocation"]
    assert (export["block_size_minimum"], export["block_size_preferred"]) == (1, 4096)
    assert export["block_size_maximum"] == 32 * MIB
    abilities = {"cache", "df", "fast_zero", "flush", "fua", "multi_conn", "trim", "zero"}
    assert {ability for ability in abilities if export[f"can_{ability}"]} == abilities


@pytest.mark.needs("nbdinfo")
def test_nbdinfo_maps_data_and_holes(bench: NbdBench, image: ImageInfo) -> None:
    write(bench, image, MIB, b"x" * (3 * PAGE))
    pieces = json.loads(run("nbdinfo", "--map", "--json", bench.uri()))
    assert [(piece["offset"], piece["length"], piece["description"]) for piece in pieces] == [
        (0, MIB, "hole,zero"),
        (MIB, 3 * PAGE, "data"),
        (MIB + 3 * PAGE, 31 * MIB - 3 * PAGE, "hole,zero"),
    ]


@pytest.mark.needs("nbdcopy")
def test_nbdcopy_brings_an_image_in_and_out_and_keeps_it_sparse(bench: NbdBench, image: ImageInfo) -> None:
    """nbdcopy uses several connections at once, trims and zeroes."""
    source, back = bench.directory / "source", bench.directory / "back"
    with source.open("wb") as file:
        file.write(os.urandom(3 * MIB + 12345))
        file.seek(20 * MIB)
        file.write(os.urandom(MIB))
        file.truncate(image.size_bytes)
    write(bench, image, 10 * MIB, b"to be overwritten with zeroes" * 1000)
    run("nbdcopy", "--flush", source, bench.uri())
    assert bench.content(image) == source.read_bytes()
    assert bench.pool.image(image.id).allocated_bytes < 6 * MIB
    back.touch()
    run("nbdcopy", bench.uri(), back)
    assert back.read_bytes() == source.read_bytes()


@pytest.mark.needs("qemu-img")
def test_qemu_img_knows_converts_and_compares(bench: NbdBench, image: ImageInfo) -> None:
    source, out = bench.directory / "source.qcow2", bench.directory / "out.raw"
    raw = bench.directory / "source.raw"
    raw.write_bytes(os.urandom(2 * MIB) + bytes(28 * MIB) + os.urandom(2 * MIB))
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, source)
    told = json.loads(run("qemu-img", "info", "--output=json", qemu_uri(bench)))
    assert told["virtual-size"] == image.size_bytes
    run("qemu-img", "convert", "-n", "-f", "qcow2", "-O", "raw", source, qemu_uri(bench))
    assert "identical" in run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", qemu_uri(bench), source)
    run("qemu-img", "convert", "-f", "raw", "-O", "raw", qemu_uri(bench), out)
    assert out.read_bytes() == raw.read_bytes() == bench.content(image)
    mapped = json.loads(run("qemu-img", "map", "-f", "raw", "--output=json", qemu_uri(bench)))
    assert sum(piece["length"] for piece in mapped if piece["data"]) == 4 * MIB
    write(bench, image, 5 * MIB, b"different")
    assert "mismatch" in run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", qemu_uri(bench), source, fails=True)


@pytest.mark.needs("qemu-io")
def test_qemu_io_writes_discards_zeroes_and_flushes(bench: NbdBench, image: ImageInfo) -> None:
    commands = [
        "write -P 0xaa 0 1M",
        "write -P 0xbb 3000 5000",
        "write -f -P 0xcc 2M 64k",
        "write -z 512k 64k",
        "write -z -u 600k 32k",
        "discard 2M 32k",
        "aio_write -P 0xdd 4M 1M",
        "aio_read -P 0xaa 700k 100k",
        "aio_flush",
        "read -P 0xbb 3000 5000",
        "read -P 0 512k 64k",
        "read -P 0xdd 4M 1M",
        "flush",
    ]
    output = run("qemu-io", "-f", "raw", "-d", "unmap", *(f"-c{command}" for command in commands), qemu_uri(bench))
    assert "failed" not in output
    assert "error" not in output.lower()
    model = bytearray(image.size_bytes)
    for offset, length, byte in (
        (0, MIB, 0xAA),
        (3000, 5000, 0xBB),
        (2 * MIB, 64 << 10, 0xCC),
        (512 << 10, 64 << 10, 0),
        (600 << 10, 32 << 10, 0),
        (2 * MIB, 32 << 10, 0),
        (4 * MIB, MIB, 0xDD),
    ):
        model[offset : offset + length] = bytes([byte]) * length
    assert bench.content(image) == model
    assert bench.disk.flushes >= 2


@pytest.mark.needs("qemu-io")
def test_qemu_io_cannot_write_to_what_is_mapped_read_only(bench: NbdBench, image: ImageInfo) -> None:
    bench.maps.map(image.id, None, "read-only")
    output = run("qemu-io", "-f", "raw", "-c", "write 0 4k", qemu_uri(bench), fails=True)
    assert "Permission denied" in output
    assert "read 4096/4096" in run("qemu-io", "-r", "-f", "raw", "-c", "read -P 0 0 4k", qemu_uri(bench))


@pytest.mark.needs("fio")
@pytest.mark.parametrize("cold", [False, True])
@pytest.mark.usefixtures("image")
def test_fio_reads_back_what_it_wrote(bench: NbdBench, cold: bool) -> None:
    """Random writes of mixed sizes at queue depth 16, each verified by its checksum; `cold` sends every read
    through the background."""
    bench.disk.cold = cold
    report = run(
        *("fio", "--name=verify", "--ioengine=nbd", f"--uri={bench.uri()}", "--rw=randrw", "--iodepth=16"),
        *("--bsrange=4k-128k", "--blockalign=4k", "--verify=crc32c", "--verify_fatal=1", "--size=32m"),
        *("--fsync=64", "--randseed=7", "--verify_state_save=0"),
        *("--output-format=json", f"--directory={bench.directory}"),
    )
    (job,) = json.loads(report[report.index("{") :])["jobs"]
    assert job["error"] == 0
    assert job["read"]["total_ios"] > 100
    assert job["write"]["total_ios"] > 100


@pytest.mark.needs("fio")
def test_fio_verifies_while_snapshots_come_and_go(bench: NbdBench, image: ImageInfo) -> None:
    stop, taken = Event(), [0]

    def snapshots() -> None:
        while not stop.wait(0.05):
            (snapshot,) = bench.pool.apply([Snapshot(image.id, "passing")])
            bench.pool.apply([Delete(snapshot.id)])
            taken[0] += 1

    thread = Thread(target=snapshots)
    thread.start()
    try:
        report = run(
            *("fio", "--name=verify", "--ioengine=nbd", f"--uri={bench.uri()}", "--rw=randwrite", "--iodepth=16"),
            *("--bs=4k", "--verify=crc32c", "--verify_fatal=1", "--size=32m", "--io_size=64m"),
            *("--verify_state_save=0", "--output-format=json", f"--directory={bench.directory}"),
        )
    finally:
        stop.set()
        thread.join(20)
    (job,) = json.loads(report[report.index("{") :])["jobs"]
    assert job["error"] == 0
    assert taken[0] >= 3
