"""What fio is asked and what is read out of its answer: a wrong key would measure the wrong thing, silently."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import fio
from benchmarks.fio import Job
from benchmarks.processes import CannotMeasure


def report(**side: Any) -> str:
    idle = {"total_ios": 0, "iops": 0.0, "bw_bytes": 0, "clat_ns": {}}
    done = {
        "total_ios": 20000,
        "iops": 76628.5,
        "bw_bytes": 313869731,
        "clat_ns": {"percentile": {"99.000000": 514048}, "max": 1_500_000_000},
    }
    return json.dumps({"jobs": [{"error": 0, "read": idle, "write": {**done, **side}}]})


def test_the_side_that_worked_is_read() -> None:
    measured = fio.parse(report(), "randwrite")
    assert measured == fio.Report(20000, 76628.5, 313869731, 514048e-9, 1.5)


def test_words_before_the_json_are_passed_over() -> None:
    assert fio.parse("fio: a warning\n" + report(), "write").operations == 20000


def test_a_job_that_did_nothing_is_no_measurement() -> None:
    with pytest.raises(CannotMeasure, match="error 0 after 0 operations"):
        fio.parse(report(), "randread")


def test_a_job_that_failed_is_no_measurement() -> None:
    with pytest.raises(CannotMeasure, match="error 5"):
        fio.parse(report().replace('"error": 0', '"error": 5'), "randwrite")


@pytest.mark.parametrize("text", ["", "no json", "{}", '{"jobs": []}', '{"jobs": [{"error": 0}]}'])
def test_a_report_that_cannot_be_read_says_so(text: str) -> None:
    with pytest.raises(CannotMeasure, match="cannot be read"):
        fio.parse(text, "read")


def test_a_timed_job_on_an_export() -> None:
    words = fio.arguments(Job("randread", 4096, 16, uri="nbd://h/x", seconds=0.5, ramp_seconds=0.2), Path("o"))
    assert {"--ioengine=nbd", "--uri=nbd://h/x", "--time_based", "--runtime=500ms", "--ramp_time=200ms"} <= set(words)
    assert {"--rw=randread", "--bs=4096", "--iodepth=16", "--output=o"} <= set(words)
    assert not any(word.startswith(("--number_ios", "--refill_buffers", "--end_fsync")) for word in words)


def test_a_counted_job_on_a_file() -> None:
    job = Job("randwrite", 4096, 16, file=Path("f"), operations=5000, seed=3, fresh_data=True, flush=True)
    words = fio.arguments(job, Path("o"))
    assert {"--ioengine=psync", "--filename=f", "--number_ios=5000", "--randseed=3"} <= set(words)
    assert {"--refill_buffers", "--end_fsync=1"} <= set(words)
    assert "--time_based" not in words


@pytest.mark.needs("fio")
def test_the_same_seed_writes_to_the_same_blocks_each_once(tmp_path: Path) -> None:
    """Peers get the same writes, and 5,000 writes are 5,000 changed blocks."""
    images = []
    for name in ("a", "b"):
        file = tmp_path / name
        file.write_bytes(bytes(4 << 20))
        job = Job("randwrite", 4096, 16, file=file, operations=300, seed=7, fresh_data=True, flush=True)
        assert fio.measure(job, tmp_path).operations == 300
        images.append(file.read_bytes())
    changed = [[at for at in range(0, 4 << 20, 4096) if any(image[at : at + 4096])] for image in images]
    assert changed[0] == changed[1]
    assert len(changed[0]) == 300
