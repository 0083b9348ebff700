"""Reading an image, the quick way first."""

from __future__ import annotations

from offsite.pools.protocol import OpenImage


def read(image: OpenImage, offset: int, buffer: memoryview) -> None:
    """What was written lately, or is read for the second time, needs no disk: pools are quicker to give that
    when they need not be ready to wait."""
    if not image.read_nowait(offset, buffer):
        image.read(offset, buffer)
