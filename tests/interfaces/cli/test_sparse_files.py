"""Raw files and devices: what is read and written is the same, and holes stay holes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from offsite.errors import BadParameter, ProtocolError
from offsite.interfaces.cli import sparse_files
from offsite.interfaces.cli.sparse_files import data_extents, opened, read_frames, write_frames
from offsite.interfaces.encoding.frames import Decoder

MIB = 1 << 20


def sparse(path: Path, size: int, *pieces: tuple[int, bytes]) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)
    return path


def sent(path: Path, size: int) -> bytes:
    with opened(path) as descriptor:
        return b"".join(read_frames(descriptor, list(data_extents(descriptor, size)), size, lambda _count: None))


def received(path: Path, size: int, stream: bytes) -> None:
    with path.open("wb") as file:
        chunks = iter([stream[at : at + 70_000] for at in range(0, len(stream), 70_000)])
        write_frames(file.fileno(), size, chunks, lambda _count: None)


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [(0, os.urandom(100))],
        [(MIB, os.urandom(3 * MIB)), (20 * MIB, b"x")],
        [(0, bytes(2 * MIB) + os.urandom(65_537) + bytes(MIB))],
        [(30 * MIB - 1, b"x")],
    ],
)
def test_what_was_read_is_written_and_holes_and_zeroes_are_neither(
    tmp_path: Path, pieces: list[tuple[int, bytes]]
) -> None:
    source = sparse(tmp_path / "source", 30 * MIB, *pieces)
    stream = sent(source, 30 * MIB)
    assert len(stream) < sum(len(data.strip(b"\0")) + 200_000 for _, data in pieces) + 100
    received(tmp_path / "target", 30 * MIB, stream)
    assert (tmp_path / "target").read_bytes() == source.read_bytes()
    assert (tmp_path / "target").stat().st_blocks <= source.stat().st_blocks + 256


def test_a_file_system_without_holes_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where SEEK_DATA is not known, the kernel says that all is data."""
    source = sparse(tmp_path / "source", MIB, (5, b"hello"))
    monkeypatch.setattr(os, "lseek", lambda _descriptor, offset, how: offset if how == os.SEEK_DATA else MIB)
    with source.open("rb") as file:
        assert list(data_extents(file.fileno(), MIB)) == [(0, MIB)]


def test_a_disk_that_fails_is_not_taken_for_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    source = sparse(tmp_path / "source", MIB)
    monkeypatch.setattr(os, "lseek", fail)
    with source.open("rb") as file, pytest.raises(OSError, match="Input/output"):
        list(data_extents(file.fileno(), MIB))


def test_a_stream_that_was_cut_is_refused(tmp_path: Path) -> None:
    stream = sent(sparse(tmp_path / "source", MIB, (0, os.urandom(1000))), MIB)
    with pytest.raises(ProtocolError, match="interrupted"):
        received(tmp_path / "target", MIB, stream[:-1])


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadParameter, match="absent cannot be read: No such file"), opened(tmp_path / "absent"):
        pass


def test_what_a_target_held_before_is_gone(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old" * MIB)
    stream = sent(sparse(tmp_path / "source", MIB, (5, b"hello")), MIB)
    with (tmp_path / "target").open("r+b") as file:
        write_frames(file.fileno(), MIB, iter([stream]), lambda _count: None)
    assert (tmp_path / "target").read_bytes() == (tmp_path / "source").read_bytes()


@pytest.mark.root
def test_a_device_is_filled_with_zeroes_where_the_image_has_holes(tmp_path: Path) -> None:
    backing = tmp_path / "backing"
    backing.write_bytes(os.urandom(4 * MIB))
    device = os.popen(f"losetup --find --show {backing}").read().strip()
    if not device:
        pytest.skip("no loop device is free here")
    try:
        stream = sent(sparse(tmp_path / "source", 3 * MIB, (MIB, b"hello")), 3 * MIB)
        descriptor = os.open(device, os.O_RDWR)
        with open(descriptor, "r+b", buffering=0) as file:
            write_frames(descriptor, 3 * MIB, iter([stream]), lambda _count: None)
            os.fsync(descriptor)
            file.seek(0)
            assert file.read(3 * MIB) == (tmp_path / "source").read_bytes()
            with pytest.raises(BadParameter, match="the device has 4 MiB, but 5 MiB are required"):
                sparse_files._make_hole(descriptor, 5 * MIB)
    finally:
        os.system(f"losetup --detach {device}")


def test_frames_read_are_frames_that_the_decoder_takes(tmp_path: Path) -> None:
    stream = sent(sparse(tmp_path / "source", 10 * MIB, (MIB - 3, os.urandom(3 * MIB))), 10 * MIB)
    decoder = Decoder(10 * MIB)
    assert sum(len(data) for _, data in decoder.feed(stream)) >= 3 * MIB
    assert decoder.complete
