"""What every pool refuses: sizes that no image may have, and more promises than it may make."""

from __future__ import annotations

from offsite.errors import BadParameter, InUse, NameInUse
from offsite.pools.protocol import SIZE_BYTES_MAX, Capacity
from offsite.units import format_size


def check_size_range(pool_name: str, size_bytes: int, allocation_bytes: int) -> None:
    """Raises BadParameter."""
    if not allocation_bytes <= size_bytes <= SIZE_BYTES_MAX:
        raise BadParameter(
            f"size {format_size(size_bytes)} ({size_bytes} bytes) is not valid; "
            f"allowed are {format_size(allocation_bytes)} (a page of pool {pool_name}) to {format_size(SIZE_BYTES_MAX)}"
        )


def check_image_size(pool_name: str, size_bytes: int, allocation_bytes: int) -> None:
    """Raises BadParameter."""
    check_size_range(pool_name, size_bytes, allocation_bytes)
    if size_bytes % 512:
        raise BadParameter(f"size {size_bytes} bytes is not a whole number of 512-byte blocks")


def check_promise(pool_name: str, provisioned_bytes: int, more_bytes: int, size_bytes: int) -> None:
    """For a pool that does not overcommit. Raises BadParameter."""
    if provisioned_bytes + more_bytes > size_bytes:
        raise BadParameter(
            f"{format_size(more_bytes)} more would make {format_size(provisioned_bytes + more_bytes)} provisioned, but "
            f"pool {pool_name} has {format_size(size_bytes)} and does not overcommit"
        )


def check_overcommit(pool_name: str, capacity: Capacity, *, overcommit: bool) -> None:
    """Whether a pool may do without overcommit now. Raises InUse."""
    if not overcommit and capacity.provisioned_bytes > capacity.size_bytes:
        raise InUse(
            f"overcommit of pool {pool_name} cannot be disabled: {format_size(capacity.provisioned_bytes)} are "
            f"provisioned, and it has {format_size(capacity.size_bytes)}"
        )


def name_in_use(name: str) -> NameInUse:
    """By an image of the same pool."""
    return NameInUse(f"the name {name!r} is in use; names are unique among volumes and snapshots")
