"""The bare copy is a yardstick: it has to move all the bytes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks import tls_copy
from benchmarks.processes import CannotMeasure


def test_the_copy_is_the_same(tmp_path: Path) -> None:
    source, destination = tmp_path / "source", tmp_path / "destination"
    source.write_bytes(os.urandom(3 * tls_copy.BUFFER_BYTES + 12345))
    assert 0 < tls_copy.copy(tmp_path / "keys", source, destination) < 60
    assert destination.read_bytes() == source.read_bytes()


def test_a_receiver_that_cannot_write_is_no_measurement(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    with pytest.raises(CannotMeasure):
        tls_copy.copy(tmp_path / "keys", source, tmp_path / "no" / "destination")
