"""An image as the pool keeps it in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from offsite.pools.gate import Visitors
from offsite.pools.local.page_table import Nodes
from offsite.pools.protocol import ImageInfo, Kind


@dataclass(eq=False)
class Image:
    """A page table and a size. `nodes` is one object for the image's whole life: open images hold on to it."""

    id: int
    uuid: str
    name: str
    kind: Kind
    parent_id: int | None
    size_bytes: int
    created_at: float
    nodes: Nodes
    mapped_pages: int
    deleted: bool = False
    visitors: Visitors = field(default_factory=Visitors)

    def info(self, pool_name: str, page_bytes: int) -> ImageInfo:
        return ImageInfo(
            id=self.id,
            uuid=self.uuid,
            pool=pool_name,
            name=self.name,
            kind=self.kind,
            parent_id=self.parent_id,
            size_bytes=self.size_bytes,
            created_at=self.created_at,
            allocated_bytes=self.mapped_pages * page_bytes,
        )
