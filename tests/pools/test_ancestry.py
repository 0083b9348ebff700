"""Which snapshot is one of which volume: what may be rolled back to it, and what a set may send of it."""

from __future__ import annotations

from offsite.pools.ancestry import is_snapshot_of
from offsite.pools.protocol import ImageInfo, Kind


def image(id: int, parent_id: int | None, kind: Kind = "snapshot") -> ImageInfo:
    return ImageInfo(id, f"uuid-{id}", "A", f"name-{id}", kind, parent_id, 1 << 20, 0.0, 0)


def test_a_snapshot_is_one_of_all_that_it_descends_from_and_of_nothing_else() -> None:
    """By way of other snapshots, too; not of itself, nor the other way round, nor of a brother."""
    volume, other = image(1, None, "volume"), image(2, None, "volume")
    monday, of_monday, tuesday = image(3, 1), image(4, 3), image(5, 1)
    images = [volume, other, monday, of_monday, tuesday]
    found = {(a.id, b.id) for a in images for b in images if is_snapshot_of(images, a, b)}
    assert found == {(3, 1), (4, 1), (4, 3), (5, 1)}


def test_a_snapshot_whose_volume_was_deleted_is_one_of_nothing() -> None:
    volume, orphan = image(1, None, "volume"), image(3, 2)
    assert not is_snapshot_of([volume, orphan], orphan, volume)
