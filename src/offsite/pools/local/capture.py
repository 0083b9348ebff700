"""What changed since the last flush: taken out of memory at one instant, put back if it cannot be written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from offsite.pools.local.image import Image
from offsite.pools.local.page_table import Leaf, Node, Nodes, PageTable
from offsite.pools.local.reclaim import SomePages, gathered
from offsite.pools.local.records import Captured, node_blob, nodes_blob

DIRTY_LEAVES_MAX = 16384  # 64 GiB of images at 16 KiB pages, written anywhere
DIRTY_LEAVES_MIN = 256
LEAF_BYTES, NODE_BYTES, DEAD_ROW_BYTES = 8192, 24576, 2048  # at most, of a row in the WAL and in the database together
DEAD_ROWS_MAX = 4096  # of each table in one commit, for which every host's flush waits; the others go with the next


@dataclass
class Capture:
    """The rows to write, and the objects they were made from."""

    rows: Captured
    freed: list[SomePages]  # free as soon as the rows are durable
    left_pages: list[SomePages]  # one owner less as soon as the rows are durable
    left_leaves: list[Leaf]
    leaves: set[Leaf]
    nodes: set[Node]
    images: list[Nodes]

    @property
    def bytes_most(self) -> int:
        """What its commit may take of the disk."""
        rows = self.rows
        images = sum(len(blob) for blob, _, _ in rows.images)
        dead = len(rows.dead_leaves) + len(rows.dead_nodes)
        return len(rows.leaves) * LEAF_BYTES + len(rows.nodes) * NODE_BYTES + dead * DEAD_ROW_BYTES + 2 * images


def dirty_leaves_max(free_bytes: int) -> int:
    """How many changed leaves may wait for a commit, when the disk of the database has so much left: at most a quarter
    of it is for them."""
    return max(DIRTY_LEAVES_MIN, min(DIRTY_LEAVES_MAX, free_bytes // (4 * LEAF_BYTES)))


def take(table: PageTable, images: Iterable[Image]) -> Capture:
    """Under the pool's lock; costs time by what changed."""
    changed = [image for image in images if image.nodes.changed]
    rows = Captured(
        leaves=[(leaf.id, table.loaded(leaf).tobytes()) for leaf in table.dirty_leaves],
        nodes=[(node.id, node_blob(node)) for node in table.dirty_nodes],
        images=[(nodes_blob(image.nodes), image.size_bytes, image.id) for image in changed],
        dead_leaves=[(leaf_id,) for leaf_id in table.dead_leaves[:DEAD_ROWS_MAX]],
        dead_nodes=[(node_id,) for node_id in table.dead_nodes[:DEAD_ROWS_MAX]],
    )
    for image in changed:
        image.nodes.changed = False
    capture = Capture(
        rows=rows,
        freed=[table.freed, *table.freed_arrays],
        left_pages=[table.left_pages, *table.left_arrays],
        left_leaves=table.left_leaves,
        leaves=table.dirty_leaves,
        nodes=table.dirty_nodes,
        images=[image.nodes for image in changed],
    )
    table.dirty_leaves, table.dirty_nodes = set(), set()
    del table.dead_leaves[:DEAD_ROWS_MAX], table.dead_nodes[:DEAD_ROWS_MAX]
    table.freed, table.freed_arrays = [], []
    table.left_pages, table.left_arrays, table.left_leaves = [], [], []
    return capture


def put_back(table: PageTable, capture: Capture) -> None:
    """Under the pool's lock. A leaf or node that was dropped meanwhile is dead, and must not be written again."""
    table.dirty_leaves |= {leaf for leaf in capture.leaves if leaf.owners}
    table.dirty_nodes |= {node for node in capture.nodes if node.owners}
    table.dead_leaves += [row[0] for row in capture.rows.dead_leaves]
    table.dead_nodes += [row[0] for row in capture.rows.dead_nodes]
    table.freed_arrays.append(gathered(capture.freed))
    table.left_arrays.append(gathered(capture.left_pages))
    table.left_leaves += capture.left_leaves
    for nodes in capture.images:
        nodes.changed = True
