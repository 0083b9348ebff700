"""The rows of a pool's page tables: written by a flush, read at start.

Rows of images name nodes, rows of nodes name leaves, rows of leaves name pages. A row that nothing names
any more is left behind when power fails between two flushes, and is swept at the next start.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from offsite.errors import RESTORE_WHOLE, StateDirectoryError
from offsite.pools.local.image import Image
from offsite.pools.local.page_table import LEAVES_PER_NODE, PAGES_PER_LEAF, Leaf, Node, Nodes, PageTable

_ROWS_AT_A_TIME = 4096
_LEAVES_AT_A_TIME = 500  # SQLite takes at most 999 parameters in old versions
_POOL_SHIFT = 48  # pools share the tables: an id is its pool's id and a number


@dataclass
class Captured:
    """What a flush has to write: copied under the pool's lock, written without it."""

    leaves: list[tuple[int, bytes]]
    nodes: list[tuple[int, bytes]]
    images: list[tuple[bytes, int, int]]  # nodes, size and id of each image whose row has to change
    dead_leaves: list[tuple[int]]
    dead_nodes: list[tuple[int]]

    def __bool__(self) -> bool:
        return bool(self.leaves or self.nodes or self.images or self.dead_leaves or self.dead_nodes)


def id_range(pool_id: int) -> tuple[int, int]:
    """First and last id of nodes and of leaves that are this pool's."""
    return (pool_id << _POOL_SHIFT) + 1, (pool_id + 1 << _POOL_SHIFT) - 1


def node_blob(node: Node) -> bytes:
    return array("Q", [0 if leaf is None else leaf.id for leaf in node.leaves]).tobytes()


def nodes_blob(nodes: Nodes) -> bytes:
    pairs = [(index, node.id) for index, node in sorted(nodes.items())]
    return np.array(pairs, dtype="<u8").tobytes()


def write(connection: Connection, captured: Captured) -> None:
    statements: list[tuple[str, Sequence[tuple[object, ...]]]] = [
        ("INSERT OR REPLACE INTO leaves (id, pages) VALUES (?, ?)", captured.leaves),
        ("INSERT OR REPLACE INTO nodes (id, leaves) VALUES (?, ?)", captured.nodes),
        ("DELETE FROM leaves WHERE id = ?", captured.dead_leaves),
        ("DELETE FROM nodes WHERE id = ?", captured.dead_nodes),
        (
            "UPDATE images SET nodes = ?, size_bytes = ? WHERE id = ?",
            captured.images,
        ),
    ]
    for sql, rows in statements:
        if rows:
            connection.exec_driver_sql(sql, list(rows))


def read_leaves(connection: Connection, ids: list[int]) -> dict[int, array[int]]:
    """The pages of leaves, by their ids, as far as they have a row."""
    found: dict[int, array[int]] = {}
    for at in range(0, len(ids), _LEAVES_AT_A_TIME):
        some = ids[at : at + _LEAVES_AT_A_TIME]
        marks = ",".join("?" * len(some))
        rows = connection.exec_driver_sql(f"SELECT id, pages FROM leaves WHERE id IN ({marks})", tuple(some))
        found.update((leaf_id, array("I", blob)) for leaf_id, blob in rows)
    return found


def read_table(connection: Connection, pool_id: int, images: Iterable[tuple[Image, bytes]], table: PageTable) -> None:
    """Builds nodes and leaves of all images, and counts what owns what. Leaves stay unloaded.

    Raises StateDirectoryError when rows contradict each other.
    """
    rows = connection.exec_driver_sql("SELECT id, leaves FROM nodes WHERE id BETWEEN ? AND ?", id_range(pool_id))
    node_leaves: dict[int, bytes] = {node_id: blob for node_id, blob in rows}
    leaves: dict[int, Leaf] = {}
    nodes: dict[int, Node] = {}
    for image, blob in images:
        if len(blob) % 16:
            raise StateDirectoryError(
                f"the list of nodes of image {image.name!r} was cut; the database is damaged; {RESTORE_WHOLE}"
            )
        for index, node_id in np.frombuffer(blob, dtype="<u8").reshape(-1, 2).tolist():
            node = nodes.get(node_id)
            if node is not None:
                node.owners += 1
            else:
                if len(node_leaves.get(node_id, b"")) != 8 * LEAVES_PER_NODE:
                    raise StateDirectoryError(
                        f"the database lacks node {node_id} of image {image.name!r}; it is damaged; {RESTORE_WHOLE}"
                    )
                leaf_ids = np.frombuffer(node_leaves[node_id], dtype="<u8")
                node = nodes[node_id] = _build_node(node_id, leaf_ids, leaves)
            image.nodes[index] = node
    mapped = _count_pages(connection, pool_id, leaves, table)
    per_node = {node.id: sum(mapped[leaf.id] for leaf in node.leaves if leaf is not None) for node in nodes.values()}
    for image, _ in images:
        image.mapped_pages = sum(per_node[node.id] for node in image.nodes.values())
    table.dead_nodes = [node_id for node_id in node_leaves if node_id not in nodes]
    table.next_node_id = max(node_leaves, default=id_range(pool_id)[0] - 1) + 1


def _build_node(node_id: int, leaf_ids: NDArray[np.uint64], leaves: dict[int, Leaf]) -> Node:
    built: list[Leaf | None] = [None] * LEAVES_PER_NODE
    for at in np.flatnonzero(leaf_ids).tolist():
        leaf_id = int(leaf_ids[at])
        leaf = leaves.get(leaf_id)
        if leaf is None:
            leaf = leaves[leaf_id] = Leaf(leaf_id, None)
        else:
            leaf.owners += 1
        built[at] = leaf
    return Node(node_id, built)


def _count_pages(connection: Connection, pool_id: int, leaves: dict[int, Leaf], table: PageTable) -> dict[int, int]:
    """Counts the owners of every page; returns how many pages each leaf maps."""
    mapped: dict[int, int] = {}
    last_id = id_range(pool_id)[0] - 1
    for ids, pages in _leaf_rows(connection, pool_id):
        last_id = max(last_id, ids[-1])
        kept = np.fromiter((leaf_id in leaves for leaf_id in ids), dtype=bool, count=len(ids))
        table.dead_leaves.extend(leaf_id for leaf_id, keep in zip(ids, kept, strict=True) if not keep)
        counts = np.count_nonzero(pages, axis=1)
        mapped.update(zip(ids, counts.tolist(), strict=True))
        numbers = pages[kept].ravel()
        numbers = numbers[numbers != 0]
        if len(numbers) and int(numbers.max()) >= len(table.owners):
            raise StateDirectoryError(
                f"a page table names page {int(numbers.max())}, and the pool has {len(table.owners)}; "
                f"the database is damaged; {RESTORE_WHOLE}"
            )
        np.add.at(table.owners, numbers, np.uint16(1))
    missing = leaves.keys() - mapped.keys()
    if missing:
        raise StateDirectoryError(
            f"the database lacks leaf {min(missing)} of a page table; it is damaged; {RESTORE_WHOLE}"
        )
    table.used = int(np.count_nonzero(table.owners))
    table.next_leaf_id = last_id + 1
    return mapped


def _leaf_rows(connection: Connection, pool_id: int) -> Iterator[tuple[list[int], NDArray[np.uint32]]]:
    result = connection.exec_driver_sql(
        "SELECT id, pages FROM leaves WHERE id BETWEEN ? AND ? ORDER BY id", id_range(pool_id)
    )
    while rows := result.fetchmany(_ROWS_AT_A_TIME):
        for leaf_id, pages in rows:
            if not isinstance(pages, bytes) or len(pages) != PAGES_PER_LEAF * 4:
                raise StateDirectoryError(
                    f"leaf {leaf_id} of a page table has a wrong length; the database is damaged; {RESTORE_WHOLE}"
                )
        blob = b"".join(row[1] for row in rows)
        yield [row[0] for row in rows], np.frombuffer(blob, dtype="<u4").reshape(-1, PAGES_PER_LEAF)
