"""Which snapshot was taken of which volume, at once or by way of other snapshots. No I/O here."""

from __future__ import annotations

from collections.abc import Iterable

from offsite.pools.protocol import ImageInfo


def is_snapshot_of(images: Iterable[ImageInfo], snapshot: ImageInfo, origin: ImageInfo) -> bool:
    """Whether `snapshot` descends from `origin`. `images` are all of their pool."""
    parents = {image.id: image.parent_id for image in images}
    above = parents.get(snapshot.id)
    while above is not None and above != origin.id:
        above = parents.get(above)
    return above is not None
