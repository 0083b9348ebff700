"""A progress bar on stderr: bytes, rate, and the time that is left. Nothing where there is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from offsite.escaping import escaped


@contextmanager
def bar(title: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
    """What it yields is told how many bytes were done."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(escaped(title), total=total_bytes)
        yield lambda count: progress.advance(task, count)
