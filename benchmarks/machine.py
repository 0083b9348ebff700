"""What the figures were measured on: enough to judge them by, nothing that names the machine."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sqlite3
import ssl
import subprocess
from pathlib import Path

from offsite.units import GIB, KIB

_TOOLS = ("fio", "nbdkit", "qemu-nbd", "btrfs")
_VERSION = re.compile(r"\d+(?:\.\d+)+")


def facts(directory: Path) -> list[tuple[str, str]]:
    """(what, value); `directory` is where the data lies, of which only the kind of its file system is told."""
    processors = len(os.sched_getaffinity(0))
    versions = [f"{tool} {_tool_version(tool)}" for tool in _TOOLS]
    return [
        ("Processor", f"{processor_model(Path('/proc/cpuinfo').read_text())}, {processors} cores"),
        ("Memory", f"{memory_bytes(Path('/proc/meminfo').read_text()) / GIB:.1f} GiB"),
        ("Kernel", f"Linux {version_number(platform.release())}"),
        ("File system under all data", file_system(directory)),
        (
            "Python",
            f"{platform.python_version()}, {version_words(ssl.OPENSSL_VERSION)}, SQLite {sqlite3.sqlite_version}",
        ),
        ("Peers and tools", ", ".join(versions)),
    ]


def processor_model(cpuinfo: str) -> str:
    match = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return match[1].strip() if match else platform.machine()


def memory_bytes(meminfo: str) -> int:
    match = re.search(r"^MemTotal:\s*(\d+) kB$", meminfo, re.MULTILINE)
    return int(match[1]) * KIB if match else 0


def version_number(text: str) -> str:
    """The first dotted number in `text`: a release may have a host's or a builder's name behind it."""
    match = _VERSION.search(text)
    return match[0] if match else "unknown"


def version_words(text: str) -> str:
    return " ".join(text.split()[:2])


def file_system(directory: Path) -> str:
    """The kind of file system that `directory` lies on, such as ext4 or tmpfs."""
    found = subprocess.run(
        ["stat", "--file-system", "--format=%T", str(directory)], capture_output=True, text=True, check=True
    )
    return found.stdout.strip()


def _tool_version(tool: str) -> str:
    if shutil.which(tool) is None:
        return "(not installed)"
    found = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True)
    return version_number(found.stdout)
