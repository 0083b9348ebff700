"""Where the images of a set are."""

from __future__ import annotations

from collections.abc import Mapping

from offsite.errors import VolumeNotFound
from offsite.pools.protocol import ImageInfo, Pool


def find_image(pools: Mapping[str, Pool], image_id: int) -> tuple[Pool, ImageInfo]:
    """The pool of an image, and what is known of it. Raises VolumeNotFound."""
    for pool in pools.values():
        try:
            return pool, pool.image(image_id)
        except VolumeNotFound:
            continue
    raise VolumeNotFound(f"no pool has an image {image_id}")


def internal_name(point: str, member: int) -> str:
    """The name of the internal image of a point. It has a character that names of users may not have, so
    it is in nobody's way."""
    return f"<{point} {member}>"
