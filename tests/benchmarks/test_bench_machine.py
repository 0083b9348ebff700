"""RESULTS.md tells what the machine is, and nothing that names it."""

from __future__ import annotations

import platform
from pathlib import Path

from benchmarks import machine


def test_processor_and_memory_out_of_what_the_kernel_says() -> None:
    assert machine.processor_model("processor : 0\nmodel name\t: AMD EPYC  \nflags : x\n") == "AMD EPYC"
    assert machine.processor_model("BogoMIPS : 48\n") == platform.machine()  # ARM has no model name
    assert machine.memory_bytes("MemTotal:  1024 kB\nMemFree: 1 kB\n") == 1 << 20
    assert machine.memory_bytes("") == 0


def test_a_release_loses_what_a_builder_or_host_put_behind_it() -> None:
    assert machine.version_number("6.18.44-myhost-v7") == "6.18.44"
    assert machine.version_number("qemu-nbd 7.2.22 (Debian 1:7.2)") == "7.2.22"
    assert machine.version_number("?") == "unknown"


def test_facts_name_no_path_and_no_host(tmp_path: Path) -> None:
    text = repr(machine.facts(tmp_path))
    assert str(tmp_path) not in text
    assert platform.node() not in text.split()
