"""`offsite import` and `offsite export`: image files in and out, sparse, with progress."""

from __future__ import annotations

import os

from offsite.errors import BadParameter
from offsite.interfaces import frames
from offsite.interfaces.client import Client
from offsite.interfaces.options import CommandLine, only_words, path
from offsite.interfaces.other_formats import as_raw, check_qemu_img, format_of, replacing
from offsite.interfaces.progress_bar import bar
from offsite.interfaces.sparse_files import data_extents, opened, read_frames, write_frames
from offsite.management.reply import Reply
from offsite.units import format_size

SIZE_STEP_BYTES = 4096


def import_image(client: Client, line: CommandLine) -> Reply:
    name, file = only_words(line, "import NAME FILE", 2)
    source = path(file)
    with as_raw(source, format_of(line, source)) as raw, opened(raw) as descriptor:
        size_bytes = os.lseek(descriptor, 0, os.SEEK_END)
        rounded = -(-size_bytes // SIZE_STEP_BYTES) * SIZE_STEP_BYTES
        query = {"name": name, "pool": line.options.get("pool", "A"), "size": str(rounded)}
        extents = list(data_extents(descriptor, size_bytes))
        with bar(f"Importing {name}", sum(length for _, length in extents)) as advance:
            return client.send("/offsite/v1/import", query, read_frames(descriptor, extents, rounded, advance))


def export_image(client: Client, line: CommandLine) -> Reply:
    name, file = only_words(line, "export NAME FILE", 2)
    target = path(file)
    format = format_of(line, target)
    if target.exists() and not target.is_block_device() and "overwrite" not in line.options:
        raise BadParameter(f"{target} is there already; give another name, or --overwrite")
    if format != "raw":
        check_qemu_img(format)
    with client.receive("/offsite/v1/export", {"name": name}) as response:
        size_bytes, data_bytes = int(response.headers["size-bytes"]), int(response.headers["data-bytes"])
        chunks = iter(lambda: response.read1(frames.PIECE_BYTES_MAX), b"")
        with replacing(target, format) as raw, bar(f"Exporting {name}", data_bytes) as advance:
            descriptor = os.open(raw, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            with open(descriptor, "wb", buffering=0):
                write_frames(descriptor, size_bytes, chunks, advance)
                os.fsync(descriptor)
    sizes = f"{format_size(size_bytes)}, {format_size(data_bytes)} of it data"
    return Reply(f"{name} was exported to {target}: {sizes}.")
