"""Image files that are not raw: by way of a raw file beside them, which is sparse, and qemu-img."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from offsite.errors import BadParameter
from offsite.interfaces.cli import qemu_img
from offsite.interfaces.cli.image_formats import QEMU_FORMATS, RAW
from offsite.interfaces.cli.options import CommandLine


def format_of(line: CommandLine, file: Path) -> str:
    """As the option says, or by the name. Never by the content: who writes a volume could make it look like any."""
    return line.options.get("format") or QEMU_FORMATS.get(file.suffix.lower(), RAW)


@contextmanager
def as_raw(source: Path, format: str) -> Iterator[Path]:
    if format == RAW:
        yield source
        return
    qemu_img.check_installed(format)
    size_bytes = qemu_img.check_stands_alone(source, format)
    beside = source.absolute().parent
    with _directory_in(beside if os.access(beside, os.W_OK) else Path(tempfile.gettempdir())) as directory:
        raw = directory / "raw"
        qemu_img.convert(source, format, raw, RAW, size_bytes)
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
        if format != RAW:
            qemu_img.convert(raw, RAW, made, format, raw.stat().st_size)
        (raw if format == RAW else made).replace(target)


@contextmanager
def _directory_in(parent: Path) -> Iterator[Path]:
    try:
        directory = tempfile.TemporaryDirectory(prefix=".offsite-", dir=parent)
    except OSError as error:
        raise BadParameter(f"{parent} cannot be written to: {error.strerror}") from error
    with directory as name:
        yield Path(name)
