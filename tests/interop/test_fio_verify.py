"""fio checks every block that it wrote, while snapshots of the volume are taken and deleted under it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systems import System, two_systems


@pytest.fixture(scope="module")
def london(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with two_systems(tmp_path_factory.mktemp("fio")) as (london, _):
        london.ask("create", "volume", "pool", "A", "size", "128MiB", "Fio")
        london.map("Fio")
        london.ask("create", "replication-set", "peer-connection", "Newark", "primary-volume", "Fio", "FioDR")
        yield london


@pytest.mark.slow
@pytest.mark.needs("fio")
@pytest.mark.parametrize("block_bytes", ["4k", "512-48k"])
def test_what_fio_wrote_is_what_it_reads_while_snapshots_come_and_go(
    london: System, block_bytes: str, tmp_path: Path
) -> None:
    """No write is lost between a page and its copy: each snapshot makes every page be copied once more."""
    fio = subprocess.Popen(
        [
            "fio", "--name=verify", "--ioengine=nbd", f"--uri={london.nbd_uri('Fio')}", "--rw=randwrite",
            "--size=128m", "--iodepth=16", f"--bsrange={block_bytes}" if "-" in block_bytes else f"--bs={block_bytes}",
            "--verify=crc32c", "--verify_backlog=512", "--verify_fatal=1", "--time_based", "--runtime=8",
            "--verify_state_save=0",
            "--output-format=json", f"--output={tmp_path}/fio.json",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    snapshots = 0
    while fio.poll() is None:
        name = f"under-{snapshots}"
        london.ask("create", "snapshots", "volumes", "Fio", name)
        if snapshots % 3 == 1:
            subprocess.run(london.command("replicate", "FioDR"), capture_output=True, timeout=60, check=False)
        london.ask("delete", "snapshot", name)
        snapshots += 1
    assert fio.stderr is not None
    said = fio.stderr.read()
    assert fio.returncode == 0, said
    assert "verify" not in said, said
    job = json.loads((tmp_path / "fio.json").read_text())["jobs"][0]
    assert job["error"] == 0
    assert job["write"]["total_ios"] > 1000
    assert job["read"]["total_ios"] > 1000, "fio did not verify anything"
    assert snapshots >= 3
