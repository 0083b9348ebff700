"""The product, broken on purpose: one way for each invariant. The simulator has to see it (test_mutants.py).

Each is what a slip in that place would do, in one line or a few.
docs/decisions/0014-simulator.md tells which seed saw it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from sqlalchemy import Connection

from offsite.errors import PoolFull
from offsite.pools.local import free_space, open_image, page_store, page_table
from offsite.pools.local import pool as local_pool
from offsite.pools.local.reclaim import gathered
from offsite.pools.protocol import Change, Delete, ImageInfo, Records, Snapshot
from offsite.replication.peers import introductions
from offsite.replication.peers.incarnation import Acquaintance, Lineage, Verdict
from offsite.replication.points import point_records
from offsite.replication.points.plan import PrimarySide, Relation, Step, compare, plan
from offsite.replication.records import set_records
from offsite.replication.runs import dispatcher, reconciler, run_points
from offsite.replication.transfer.receiver import batch_writer
from offsite.replication.transfer.receiver import endpoint as secondary_end
from offsite.replication.transfer.sender import block_diff, endpoint, machine
from offsite.replication.wire.batch import DATA, Changes
from offsite.replication.wire.messages import Holds
from tests.simulation.pool import SimulatedPool

COMMIT_SECONDS = 0.02


@dataclass(frozen=True)
class Mutant:
    invariant: str
    what: str
    break_it: Callable[[], None]
    seeds: int = 60  # of so many from `first` on, at least one sees it
    lies: bool = False  # in lives in which one of the systems lies
    first: int = 1


def _put(where: Any, name: str, value: object) -> None:
    """In place of a function of the product."""
    setattr(where, name, value)


def _no_sync() -> None:
    _put(local_pool.LocalPool, "_sync_data", lambda _self: None)


def _write_to_shared_pages() -> None:
    _put(page_table.PageTable, "is_owned", lambda _self, _nodes, _index, _page: True)


def _members_one_by_one() -> None:
    apply = SimulatedPool.apply

    def one_by_one(self: SimulatedPool, wanted: Sequence[Change], records: Records | None = None) -> list[ImageInfo]:
        if len(wanted) > 1 and all(isinstance(change, Snapshot) for change in wanted):
            made: list[ImageInfo] = []
            for change in wanted[:-1]:
                made += apply(self, [change])
                self.machine.world.tasks.sleep(COMMIT_SECONDS)

            def of_all(connection: Connection, last: Sequence[ImageInfo]) -> None:
                if records is not None:
                    records(connection, [*made, *last])

            return made + apply(self, wanted[-1:], of_all)
        return apply(self, wanted, records)

    _put(SimulatedPool, "apply", one_by_one)


def _freed_before_the_commit() -> None:
    unmap, take = open_image.LocalOpenImage._unmap, free_space.FreeSpace.take

    def and_free(self: Any, offset: int, end: int) -> int:
        stop = unmap(self, offset, end)
        pool, table = self._pool, self._pool.table
        with pool.lock:
            pages = gathered([table.freed, *table.freed_arrays]).tolist()
            table.freed, table.freed_arrays = [], []
            for page in pages:
                pool.store.punch(page, 1)
            pool.free_space.__dict__.setdefault("early", []).extend(pages)
        return stop

    def take_early(self: Any, wanted: int, *, to_overwrite: bool = False) -> tuple[int, int]:
        early = self.__dict__.get("early")
        return (early.pop(), 1) if early else take(self, wanted, to_overwrite=to_overwrite)

    _put(open_image.LocalOpenImage, "_unmap", and_free)
    _put(free_space.FreeSpace, "take", take_early)


def _free_pages_keep_their_bytes() -> None:
    _put(page_store.PageStore, "punch", lambda _self, _first, _count: None)


def _an_owner_too_many() -> None:
    share = page_table.PageTable.share

    def share_and_count_twice(self: page_table.PageTable, nodes: page_table.Nodes) -> page_table.Nodes:
        for node in nodes.values():
            node.owners += 1
        return share(self, nodes)

    _put(page_table.PageTable, "share", share_and_count_twice)


def _full_is_not_told() -> None:
    with_space = open_image.LocalOpenImage._with_space

    def pretend(
        self: Any, write: Callable[[int, memoryview], int], offset: int, data: memoryview, *, is_told: bool = True
    ) -> int:
        try:
            return with_space(self, write, offset, data, is_told=is_told)
        except PoolFull:
            return len(data)

    _put(open_image.LocalOpenImage, "_with_space", pretend)


def _a_difference_too_short() -> None:
    find = block_diff.Differences.find_changes

    def all_but_one_block(self: block_diff.Differences, start: Any, end: Any = None) -> Iterator[Any]:
        for found in find(self, start, end):
            data = found.extents["kind"] == DATA
            long = data & (found.extents["length"] > 4096)
            if long.any():
                last = np.flatnonzero(data)[-1]
                if found.extents["length"][last] > 4096:
                    found.extents["length"][last] -= 4096
                    yield Changes(found.extents, found.data[:-4096], found.position, found.scanned_bytes)
                    continue
            yield found

    _put(block_diff.Differences, "find_changes", all_but_one_block)


def _nothing_is_verified() -> None:
    _put(batch_writer.BatchWriter, "_verify", lambda _self, _arrived: None)
    _put(batch_writer.BatchWriter, "compare", lambda _self, _arrived: None)


def _a_request_lets_the_base_go() -> None:
    take = run_points.RunPoints.take

    def and_forget(self: run_points.RunPoints, of: Any, run: str, number: int, source: Any) -> Any:
        state = take(self, of, run, number, source)
        with self._resources.database.read() as connection:
            bases = [point for point in point_records.set_points(connection, of.id) if point.state == "base"]
        doomed = [point.id for point in bases]
        self._pool(of).apply(
            [Delete(image_id) for point in bases for image_id in point.image_ids],
            lambda connection, _: point_records.delete_points(connection, doomed),
        )
        return state

    _put(run_points.RunPoints, "take", and_forget)


def _a_lost_answer_is_not_understood() -> None:
    def without_adoption(primary: PrimarySide, secondary: Holds) -> list[Step]:
        if secondary.base in (*primary.pending, *primary.holds.aborted):
            secondary = msgspec.structs.replace(secondary, base=primary.holds.base, partial=None)
        return plan(primary, secondary)

    _put(machine, "plan", without_adoption)


def _both_are_primary() -> None:
    insert = set_records.insert_set

    def as_primary(connection: Any, values: dict[str, Any], members: Any) -> None:
        insert(connection, values | {"role": "primary"}, members)

    _put(set_records, "insert_set", as_primary)


def _an_unknown_copy_counts_as_an_older_one() -> None:
    def kinder(primary: PrimarySide, base: str | None) -> Relation:
        return Relation.OLDER if compare(primary, base) is Relation.DIVERGED else compare(primary, base)

    _put(sys.modules["offsite.replication.points.plan"], "compare", kinder)
    _put(reconciler, "compare", kinder)


def _a_copy_is_not_kept() -> None:
    _put(secondary_end, "keep_copy", lambda _database, _pool, _of, _base: (["V-kept"], False))


def _a_second_copy_is_taken() -> None:
    def kinder(known: Acquaintance, told: Lineage) -> Verdict:
        return Verdict.SAME if told.current == known.newest else Verdict.NEWER

    _put(introductions, "judge", kinder)


def _whole_pages_are_sent() -> None:
    kinds = block_diff._Scanner._kinds

    def all_of_them(self: Any, window: Any, blocks: int) -> Any:
        found = kinds(self, window, blocks)
        has_data = self._new_buffer[: blocks * 4096].reshape(blocks, 4096).any(axis=1)
        return np.where(has_data, np.uint8(DATA), found)

    _put(block_diff._Scanner, "_kinds", all_of_them)


def _never_again() -> None:
    _put(dispatcher, "retry_seconds", lambda _cadence, _failures, _random: 1e9)


def _an_abort_waits() -> None:
    _put(reconciler, "PATIENCE_SECONDS", None)


def _any_digest_is_believed() -> None:
    _put(endpoint.SenderEndpoint, "_differing", lambda _self, _uuid, _outcome: None)


def _anyone_may_replace_a_copy() -> None:
    _put(secondary_end.ReceiverEndpoint, "_check_replaces", lambda _self, _begin, _base: None)


MUTANTS = {
    "no-sync": Mutant("P1", "the page tables are committed without syncing the data first", _no_sync),
    "write-to-shared-pages": Mutant("P2", "every page counts as one's own to write in place", _write_to_shared_pages),
    "members-one-by-one": Mutant("P3", "the snapshots of a group are taken one after another", _members_one_by_one),
    "freed-before-the-commit": Mutant(
        "P4", "a discarded page is free before the commit", _freed_before_the_commit, 200
    ),
    "free-pages-keep-their-bytes": Mutant("P5", "free pages are given out unpunched", _free_pages_keep_their_bytes),
    "an-owner-too-many": Mutant("P6", "a snapshot counts one owner too many", _an_owner_too_many),
    "full-is-not-told": Mutant("P7", "a write to a full pool is acknowledged", _full_is_not_told),
    "a-difference-too-short": Mutant("R1", "the last block of a batch is not sent", _a_difference_too_short),
    "nothing-is-verified": Mutant("R2", "what was stored is not compared with what was sent", _nothing_is_verified),
    "a-request-lets-the-base-go": Mutant("R3", "a new request deletes the base", _a_request_lets_the_base_go),
    "a-lost-answer-is-not-understood": Mutant(
        "R4", "that the secondary has committed already is not understood", _a_lost_answer_is_not_understood
    ),
    "both-are-primary": Mutant("R5", "the other half of a set is made a primary, too", _both_are_primary),
    "an-unknown-copy-counts-as-an-older-one": Mutant(
        "R5", "what the primary has never had is filled from nothing", _an_unknown_copy_counts_as_an_older_one
    ),
    "a-copy-is-not-kept": Mutant("R5", "a copy is replaced without a snapshot of it", _a_copy_is_not_kept),
    "a-second-copy-is-taken": Mutant(
        "R5", "an older or a second copy of a system is taken for a newer start of it", _a_second_copy_is_taken, 200
    ),
    "whole-pages-are-sent": Mutant(
        "R6", "blocks of a changed page that are equal are sent, too", _whole_pages_are_sent
    ),
    "never-again": Mutant("R7", "a run that has failed is not tried again", _never_again),
    "an-abort-waits": Mutant(
        "R8", "an abort waits for the peer as long as anyone does", _an_abort_waits, 120, first=201
    ),
    "any-digest-is-believed": Mutant(
        "R2", "the digest in Committed is not compared with one's own", _any_digest_is_believed, lies=True
    ),
    "anyone-may-replace-a-copy": Mutant(
        "R5", "a copy is given up to a primary that has not named it", _anyone_may_replace_a_copy, 150, lies=True
    ),
}
"""By name."""
