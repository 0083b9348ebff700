"""A pool beside a model of it: a dictionary of blocks for each image. Whatever is done to both, they agree.

Offsets are drawn around the edges of pages, leaves and nodes, sizes so that the last page is whole or not, and
the pool is so small that it gets full. Every count is made again from scratch after every step (P6).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection

from offsite.errors import BadParameter, NameInUse, OffsiteError, PoolFull, VolumeNotFound
from offsite.pools.local.open_image import LocalOpenImage
from offsite.pools.local.pool import LocalPool
from offsite.pools.protocol import (
    Change,
    Clone,
    Create,
    Delete,
    Extent,
    ExtentKind,
    Rename,
    Replace,
    Resize,
    Snapshot,
)
from offsite.store.database import Database
from tests.pools.pool_bench import PAGE
from tests.pools.pool_files import copy_sparse
from tests.pools.pool_hosts import check_counts, check_free_pages_are_holes
from tests.pools.pool_model import BLOCK, ZERO, Blocks, Model

LEAF, NODE = 256 * PAGE, 256 * 1024 * PAGE
POOL_PAGES = 330
MEMORY = Path("/dev/shm")
SIZES = [
    PAGE,
    2 * PAGE + BLOCK,
    5 * PAGE,
    LEAF - BLOCK,
    LEAF,
    2 * LEAF + 3 * BLOCK,
    NODE,
    NODE + 2 * PAGE + BLOCK,
    128 << 40,
]
NAMES = [*"abcdefghijklmnopqrstuvwxyz"]


class PoolMachine(RuleBasedStateMachine):
    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(dir=self.template.parent))
        shutil.copytree(self.template, self.directory / "0")
        self.generation = 0
        self.images: dict[int, Model] = {}
        self.handles: dict[int, LocalOpenImage] = {}
        self.written = 0
        self.load()

    def teardown(self) -> None:
        try:
            self.compare_all()
            check_free_pages_are_holes(self.pool)
        finally:
            self.pool.close()
            self.database.close()
            shutil.rmtree(self.directory)

    def load(self) -> None:
        self.database = Database(self.directory / str(self.generation) / "state.db")
        self.pool = LocalPool.load(self.database, "A")

    @initialize(size=st.sampled_from(SIZES), shared=st.booleans())
    def begin_with_something(self, size: int, shared: bool) -> None:
        """Or most examples would be about empty pools."""
        for info in self.pool.apply([Create("a", size), Create("b", LEAF)]):
            self.images[info.id] = Model(info.name, "volume", None, info.size_bytes)
        first = min(self.images)
        for offset, length in ((0, 5 * PAGE), (LEAF - PAGE, 2 * PAGE), (NODE - BLOCK, 2 * BLOCK), (size - 7, 7)):
            if offset < size:
                new = self.new_bytes(min(length, size - offset))
                with self.inside(first) as opened:
                    opened.write(offset, memoryview(new))
                self.images[first].put(offset, new)
        if shared:
            (info,) = self.pool.apply([Snapshot(first, "c")])
            self.images[info.id] = replace(self.images[first].copy(), name="c", kind="snapshot", parent=first)
            self.images[first].settle()

    # -- what hosts do ---------------------------------------------------------------------------------------

    @contextmanager
    def inside(self, image: int) -> Iterator[LocalOpenImage]:
        """Through a handle that is kept, so that snapshots and rollbacks happen under open handles."""
        if image not in self.handles:
            self.handles[image] = self.pool.open(image)
        opened = self.handles[image]
        opened.begin()
        try:
            yield opened
        finally:
            opened.end()

    def a_range(self, data: st.DataObject) -> tuple[int, Model, int, int]:
        """An image, and an offset and length in it that are near some edge."""
        image = data.draw(st.sampled_from(sorted(self.images)), label="image")
        model = self.images[image]
        edges = [0, PAGE, 3 * PAGE, LEAF, NODE, model.size - PAGE, model.size]
        edge = data.draw(st.sampled_from([e for e in edges if 0 <= e <= model.size]), label="edge")
        distance = data.draw(st.sampled_from([0, 0, 1, BLOCK, 3 * BLOCK + 7, PAGE]), label="distance")
        offset = max(0, min(model.size - 1, edge - distance))
        lengths = [1, BLOCK, BLOCK + 1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE, 20 * PAGE, LEAF + PAGE]
        length = data.draw(st.sampled_from(lengths), label="length")
        return image, model, offset, min(length, model.size - offset)

    def new_bytes(self, length: int) -> bytes:
        """Bytes that were never written before, for each block others."""
        self.written += 1
        return b"".join(b"%08d.%07d" % (self.written, n // 16) for n in range(0, length, 16))[:length]

    def happened(self, model: Model, image: int, offset: int, old: bytes, new: bytes) -> None:
        """After PoolFull: each byte of the range is as before or as asked, and the model takes what there is."""
        now = self.read(image, offset, len(new))
        for at in range(0, len(new), BLOCK):
            piece = slice(at, at + BLOCK)
            assert all(n in (a, b) for n, a, b in zip(now[piece], old[piece], new[piece], strict=True))
        model.put(offset, now)

    def read(self, image: int, offset: int, length: int) -> bytes:
        slow, quick = bytearray(b"\xee" * length), bytearray(b"\xee" * length)
        with self.inside(image) as opened:
            if opened.read_nowait(offset, memoryview(quick)):
                opened.read(offset, memoryview(slow))
                assert slow == quick
            else:
                opened.read(offset, memoryview(slow))
        return bytes(slow)

    @precondition(lambda self: self.images)
    @rule(
        data=st.data(),
        actions=st.lists(st.sampled_from(["write"] * 4 + ["give back"] * 2 + ["read"]), min_size=1, max_size=5),
    )
    def host(self, data: st.DataObject, actions: list[str]) -> None:
        do = {"write": self.write, "give back": self.give_back, "read": self.look}
        for action in actions:
            do[action](data)

    def write(self, data: st.DataObject) -> None:
        image, model, offset, length = self.a_range(data)
        new, old = self.new_bytes(length), model.get(offset, length)
        try:
            with self.inside(image) as opened:
                opened.write(offset, memoryview(new))
        except PoolFull:
            self.happened(model, image, offset, old, new)
        else:
            model.put(offset, new)

    def give_back(self, data: st.DataObject) -> None:
        how = data.draw(st.sampled_from(["discard", "zero", "allocate"]), label="how")
        much = data.draw(st.booleans(), label="to the end")
        image, model, offset, length = self.a_range(data)
        if much and how != "allocate":
            length = model.size - offset
        old = model.get(offset, length) if length <= 2 * LEAF else b""
        try:
            with self.inside(image) as opened:
                if how == "discard":
                    opened.discard(offset, length)
                else:
                    opened.write_zeroes(offset, length, allocate=how == "allocate")
                if how == "allocate":
                    assert list(opened.extents(offset, length)) == [(length, True)]
        except PoolFull:
            if old:
                self.happened(model, image, offset, old, bytes(length))
            else:
                self.adopt(image, model)
        else:
            model.zero(offset, length)
            if how != "allocate":
                self.check_given_back(image, model, offset, length)
            if how == "discard" and old:  # in a full pool the ends may stay as they were
                self.happened(model, image, offset, old, bytes(length))
            elif how == "discard":
                self.adopt(image, model)

    def check_given_back(self, image: int, model: Model, offset: int, length: int) -> None:
        start = -(-offset // PAGE) * PAGE
        end = offset + length if offset + length == model.size else (offset + length) // PAGE * PAGE
        if start < end:
            with self.inside(image) as opened:
                assert list(opened.extents(start, end - start)) == [(end - start, False)]

    def look(self, data: st.DataObject) -> None:
        image, model, offset, length = self.a_range(data)
        assert self.read(image, offset, length) == model.get(offset, length)

    # -- what administrators and replication do --------------------------------------------------------------------

    @rule(data=st.data(), fails=st.sampled_from([False] * 9 + [True]))
    def apply(self, data: st.DataObject, fails: bool) -> None:
        count = data.draw(st.integers(1, 4), label="changes")
        wanted = {image: model.copy() for image, model in self.images.items()}
        changes: list[Change] = []
        made: list[int] = []  # stand-ins for the ids that we shall be told
        refused: type[OffsiteError] | None = None
        for number in range(count):
            change = self.a_change(data, number)
            changes.append(change)
            refused = refused or self.make(change, wanted, made)

        def records(_connection: Connection, _images: object) -> None:
            if fails:
                raise ZeroDivisionError

        # A cut within a page needs a page; it may come before what is refused.
        allowed = (PoolFull, refused) if refused else (PoolFull, *([ZeroDivisionError] if fails else []))
        try:
            infos = self.pool.apply(changes, records)
        except (OffsiteError, ZeroDivisionError) as error:
            assert isinstance(error, allowed), error
            if isinstance(error, PoolFull):
                assert any(isinstance(change, Resize) for change in changes)
            return
        assert refused is None
        assert not fails
        ids = {stand_in: info.id for stand_in, info in zip(made, infos, strict=True) if stand_in < 0}
        for model in wanted.values():
            model.parent = ids.get(model.parent or 0, model.parent)
        self.images = {ids.get(image, image): model for image, model in wanted.items()}

    def a_change(self, data: st.DataObject, number: int) -> Change:
        images = st.sampled_from([*sorted(self.images), *range(-number, 0)] or [77])
        names, sizes = st.sampled_from(NAMES), st.sampled_from(SIZES)
        kinds: dict[str, st.SearchStrategy[Change]] = {
            "create": st.builds(Create, names, sizes),
            "snapshot": st.builds(Snapshot, images, names),
            "clone": st.builds(Clone, images, names),
            "replace": st.builds(Replace, images, images),
            "resize": st.builds(Resize, images, sizes),
            "rename": st.builds(Rename, images, names),
            "delete": st.builds(Delete, images),
        }
        few = ["create", "create", "snapshot"] if len(self.images) < 2 else []
        return data.draw(st.one_of([kinds[k] for k in few or kinds]), label="change")

    def make(self, change: Change, images: dict[int, Model], made: list[int]) -> type[OffsiteError] | None:
        """The change in the model, or the error that it has to be refused with."""

        def found(image: int) -> int:
            return made[-image - 1] if image < 0 else image

        named = [getattr(change, f) for f in ("source", "target", "image_id") if hasattr(change, f)]
        if any(image < 0 and -image > len(made) for image in named):
            return BadParameter
        if any(found(image) not in images for image in named):
            return VolumeNotFound
        name = getattr(change, "name", None)
        if name is not None and name in {model.name for model in images.values()}:
            return NameInUse
        new = -len(made) - 1
        match change:
            case Create(name, size, kind):
                images[new] = Model(name, kind, None, size)
            case Snapshot(source, name, kind):
                images[new] = replace(images[found(source)].copy(), name=name, kind=kind, parent=found(source))
            case Clone(source, name, kind):
                images[new] = replace(images[found(source)].copy(), name=name, kind=kind, parent=None)
            case Replace(target, source):
                new = found(target)
                copy = images[found(source)].copy()
                images[new].size, images[new].blocks = copy.size, copy.blocks
            case Resize(image, size):
                new = found(image)
                images[new].cut(size)
                images[new].settle()
            case Rename(image, name):
                new = found(image)
                images[new].name = name
            case Delete(image):
                new = found(image)
                del images[new]
                for model in images.values():
                    model.parent = None if model.parent == new else model.parent
        made.append(new)
        return None

    @precondition(lambda self: self.images)
    @rule(data=st.data())
    def difference(self, data: st.DataObject) -> None:
        """Done to the old image it gives the new one; from `start` on it is the same but for what lies before."""
        ids = st.sampled_from(sorted(self.images))
        old, new = data.draw(st.one_of(st.none(), ids), label="old"), data.draw(ids, label="new")
        extents = list(self.pool.difference(old, new))
        target = self.images[new]
        result = self.images[old].copy() if old else Model("", "", None, target.size)
        result.cut(target.size) if result.size > target.size else None
        before = 0
        for extent in extents:
            assert before <= extent.offset
            assert extent.length > 0
            before = extent.offset + extent.length
            assert before <= target.size
            result.zero(extent.offset, extent.length)
            if extent.kind is ExtentKind.HOLE:
                assert not any(extent.offset <= number * BLOCK < before for number in target.blocks)
            else:
                result.put(extent.offset, target.get(extent.offset, extent.length))
        assert result.blocks == target.blocks
        if old == new:
            assert extents == []
        start = data.draw(st.sampled_from([0, 1, BLOCK, PAGE, LEAF - 1, LEAF + PAGE, NODE]), label="start")
        assert list(self.pool.difference(old, new, start)) == list(clipped(extents, start))

    # -- durability -------------------------------------------------------------------------------------------------

    @rule(what=st.sampled_from(["flush", "tidy", "warm", "reopen", "crash", "compare"]))
    def between(self, what: str) -> None:
        {
            "flush": self.flush,
            "tidy": self.tidy,
            "warm": self.keep_warm,
            "reopen": self.close_and_reopen,
            "crash": self.crash_and_reopen,
            "compare": self.compare_all,
        }[what]()

    def flush(self) -> None:
        self.pool.flush()
        for model in self.images.values():
            model.settle()

    def tidy(self) -> None:
        check_free_pages_are_holes(self.pool)
        for model in self.images.values():
            model.settle()

    def keep_warm(self) -> None:
        self.pool.reclaim(warm_bytes=64 * PAGE)

    def close_and_reopen(self) -> None:
        self.handles.clear()
        self.pool.close()
        self.database.close()
        self.load()
        for model in self.images.values():
            model.settle()

    def crash_and_reopen(self) -> None:
        """All that was flushed is there; of the rest each block is some version of it since."""
        here, there = self.directory / str(self.generation), self.directory / str(self.generation + 1)
        with self.pool._commit_lock:  # not in the middle of what the tidier commits
            copy_sparse(here, there)
        self.handles.clear()
        self.pool.close()
        self.database.close()
        shutil.rmtree(here)
        self.generation += 1
        self.load()
        for image, model in self.images.items():
            self.adopt(image, model)
            model.settle()

    def adopt(self, image: int, model: Model) -> None:
        """Takes the image as it is, if each block of it is a version that it may be."""
        found: Blocks = {}
        for offset, data in self.stretches(image, model):
            for at in range(0, len(data), BLOCK):
                if data[at : at + BLOCK] != ZERO:
                    found[(offset + at) // BLOCK] = data[at : at + BLOCK]
        for number in found.keys() | model.blocks.keys():
            now = found.get(number, ZERO)
            assert now in model.versions.get(number, ()) or now == model.blocks.get(number, ZERO)
        model.blocks = found

    def stretches(self, image: int, model: Model) -> Iterator[tuple[int, bytes]]:
        with self.inside(image) as opened:
            pieces = list(opened.extents(0, model.size))
        assert sum(length for length, _ in pieces) == model.size
        offset = 0
        for length, has_data in pieces:
            if has_data:
                yield offset, self.read(image, offset, length)
            offset += length

    # -- what always holds ----------------------------------------------------------------------------------------

    def compare_all(self) -> None:
        for image, model in self.images.items():
            found: Blocks = {}
            for offset, data in self.stretches(image, model):
                for at in range(0, len(data), BLOCK):
                    if data[at : at + BLOCK] != ZERO:
                        found[(offset + at) // BLOCK] = data[at : at + BLOCK]
            assert found == model.blocks

    @invariant()
    def counts_are_right(self) -> None:
        check_counts(self.pool)

    @invariant()
    def images_are_listed(self) -> None:
        listed = {i.id: (i.name, i.kind, i.parent_id, i.size_bytes) for i in self.pool.images()}
        assert listed == {image: (m.name, m.kind, m.parent, m.size) for image, m in self.images.items()}


def clipped(extents: list[Extent], start: int) -> Iterator[Extent]:
    for extent in extents:
        end = extent.offset + extent.length
        if end > start:
            offset = max(start, extent.offset)
            yield Extent(offset, end - offset, extent.kind)


@pytest.fixture
def template(tmp_path: Path) -> Iterator[Path]:
    """An empty pool, made once: each example begins with a copy of it."""
    directory = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else tmp_path))
    (directory / "template").mkdir()
    database = Database(directory / "template" / "state.db")
    LocalPool.create(database, "A", Path("A.data"), POOL_PAGES * PAGE, PAGE).close()
    database.close()
    yield directory / "template"
    shutil.rmtree(directory)


@pytest.mark.parametrize(
    ("examples", "steps"), [(25, 20), pytest.param(40, 40, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_the_pool_is_as_its_model(template: Path, examples: int, steps: int) -> None:
    class Machine(PoolMachine):
        pass

    Machine.template = template
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
