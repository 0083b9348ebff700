"""Image files that are not raw: by way of a raw file beside them, which is sparse, and qemu-img."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which

from offsite.errors import BadParameter
from offsite.interfaces.options import CommandLine

QEMU_FORMATS = {
    ".qcow2": "qcow2", ".qcow": "qcow", ".vmdk": "vmdk", ".vdi": "vdi", ".vhdx": "vhdx", ".vhd": "vpc", ".vpc": "vpc"
}  # fmt: skip


def format_of(line: CommandLine, file: Path) -> str:
    """As the option says, or by the name. Never by the content: who writes a volume could make it look like any."""
    return line.options.get("format") or QEMU_FORMATS.get(file.suffix.lower(), "raw")


def check_qemu_img(format: str) -> None:
    if which("qemu-img") is None:
        raise BadParameter(
            f"format {format} needs the program qemu-img, which is not installed; install it (Debian: qemu-utils), or "
            "use a raw image"
        )


@contextmanager
def as_raw(source: Path, format: str) -> Iterator[Path]:
    if format == "raw":
        yield source
        return
    check_qemu_img(format)
    beside = source.absolute().parent
    with _directory_in(beside if os.access(beside, os.W_OK) else Path(tempfile.gettempdir())) as directory:
        raw = directory / "raw"
        _convert(source, format, raw, "raw")
        yield raw


@contextmanager
def replacing(target: Path, format: str) -> Iterator[Path]:
    """Where to write a raw image to, that then becomes `target`: whole, or not at all."""
    if target.is_block_device():
        yield target
        return
    with _directory_in(target.absolute().parent) as directory:
        raw, made = directory / "raw", directory / "made"
        yield raw
        if format != "raw":
            _convert(raw, "raw", made, format)
        (raw if format == "raw" else made).replace(target)


@contextmanager
def _directory_in(parent: Path) -> Iterator[Path]:
    try:
        directory = tempfile.TemporaryDirectory(prefix=".offsite-", dir=parent)
    except OSError as error:
        raise BadParameter(f"{parent} cannot be written to: {error.strerror}") from error
    with directory as name:
        yield Path(name)


def _convert(source: Path, source_format: str, target: Path, target_format: str) -> None:
    command = ["qemu-img", "convert", "-f", source_format, "-O", target_format, str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BadParameter(f"qemu-img cannot convert {source}: {done.stderr.strip()}")
