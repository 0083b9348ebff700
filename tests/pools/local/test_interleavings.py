"""Two or three operations at once, in every order that the interpreter could run them (P2, P4, P5).

Each test holds one operation before each of its opcodes in turn and lets the others happen right there. The
quick form visits one place of twenty-four, the slow one each fourth; which ones differs from test to test.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from offsite.errors import PoolFull, VolumeNotFound
from offsite.pools.local.open_image import LocalOpenImage
from offsite.pools.local.pool import LocalPool
from offsite.pools.protocol import Change, Clone, Create, Delete, Replace, Snapshot
from offsite.store.database import Database
from tests.pools.interleaving import held_before

PAGE = 4096
BLOCK = 512
PAGES = 300  # more than a leaf
MEMORY = Path("/dev/shm")  # a commit takes a tenth of the time there


def bytes_of(letter: str, count: int = BLOCK) -> bytes:
    return letter.encode() * count


class Stage:
    """A volume X full of x, and what a test makes of it anew for each place."""

    def __init__(self, directory: Path, pages: int) -> None:
        self.database = Database(directory / "state.db")
        self.pool = LocalPool.create(self.database, "A", Path("A.data"), pages * PAGE, PAGE)
        self._idle: dict[int, list[LocalOpenImage]] = {}
        self._passing: list[int] = []
        self.x = self.create("X")
        self.write(self.x, 0, bytes_of("x", PAGES * PAGE))

    def create(self, name: str, pages: int = PAGES) -> int:
        return self.ready(self.pool.apply([Create(name, pages * PAGE)])[0].id)

    def close(self) -> None:
        self.pool.close()
        self.database.close()

    def make(self, *changes: Change) -> list[int]:
        """Makes images that live for one place only; those of the place before are deleted."""
        there = {info.id for info in self.pool.images()}
        infos = self.pool.apply([*changes, *(Delete(i) for i in self._passing if i in there)])
        self._passing = [self.ready(info.id) for info in infos[: len(changes)]]
        return self._passing

    def write(self, image: int, offset: int, data: bytes) -> None:
        self.inside(image, lambda opened: opened.write(offset, memoryview(data)))

    def discard(self, image: int, offset: int, length: int) -> None:
        self.inside(image, lambda opened: opened.discard(offset, length))

    def read(self, image: int, offset: int, length: int = BLOCK) -> bytes:
        buffer = bytearray(length)

        def do(opened: LocalOpenImage) -> None:
            if not opened.read_nowait(offset, memoryview(buffer)):
                opened.read(offset, memoryview(buffer))

        self.inside(image, do)
        return bytes(buffer)

    def inside(self, image: int, do: Callable[[LocalOpenImage], None]) -> None:
        opened = self._idle[image].pop()
        opened.begin()
        try:
            do(opened)
        finally:
            opened.end()
            self._idle[image].append(opened)

    def ready(self, image: int) -> int:
        """Opens it for the two who may use it at once: opening takes the lock that may be held just then."""
        self._idle[image] = [self.pool.open(image), self.pool.open(image)]
        return image

    def free_what_was_let_go(self) -> None:
        self.pool.flush()
        self.pool.reclaim()


@pytest.fixture
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else tmp_path) as directory:
        stage = Stage(Path(directory), getattr(request, "param", 16 * PAGES))
        yield stage
        stage.close()


in_a_small_pool = pytest.mark.parametrize("stage", [2 * PAGES], indirect=True, ids=["small pool"])
"""So small that one volume can take all that is free: what was let go is surely used again."""


_firsts = itertools.count()


@pytest.fixture(params=[24, pytest.param(4, marks=pytest.mark.slow)], ids=["few places", "many places"])
def each_place(request: pytest.FixtureRequest) -> Callable[[Callable[[int], bool]], None]:
    every: int = request.param

    def visit(scene: Callable[[int], bool]) -> None:
        assert scene(0)
        for place in itertools.count(next(_firsts) % every or every, every):
            if not scene(place):
                return

    return visit


Places = Callable[[Callable[[int], bool]], None]


def letters(place: int) -> tuple[bytes, bytes]:
    """Two contents of a block that the places before have not written."""
    return bytes_of(chr(97 + place % 23)), bytes_of(chr(65 + place % 23))


def test_two_writers_of_one_page_after_a_snapshot(stage: Stage, each_place: Places) -> None:
    """Neither write is lost, and the snapshot sees neither."""

    def scene(place: int) -> bool:
        (s,) = stage.make(Snapshot(stage.x, f"S{place}"))
        at = place % PAGES * PAGE
        before = stage.read(stage.x, at, PAGE)
        a, b = letters(place)
        again = held_before(place, lambda: stage.write(stage.x, at, a), lambda: stage.write(stage.x, at + BLOCK, b))
        assert stage.read(stage.x, at, PAGE) == a + b + before[2 * BLOCK :], place
        assert stage.read(s, at, PAGE) == before, place
        return again

    each_place(scene)


def test_volume_and_snapshot_written_at_once(stage: Stage, each_place: Places) -> None:
    """Each sees its own writes and nothing of the other's, in the page that both write and in the next."""

    def scene(place: int) -> bool:
        (s,) = stage.make(Snapshot(stage.x, f"S{place}"))
        at = place % 2 * (PAGES - 2) * PAGE
        before = stage.read(stage.x, at, 2 * PAGE)
        a, b = letters(place)

        def others() -> None:
            stage.write(s, at + PAGE, b)
            stage.write(s, at, b)

        again = held_before(place, lambda: stage.write(stage.x, at, a), others)
        assert stage.read(stage.x, at, 2 * PAGE) == a + before[BLOCK:], place
        assert stage.read(s, at, 2 * PAGE) == b + before[BLOCK:PAGE] + b + before[PAGE + BLOCK :], place
        return again

    each_place(scene)


def test_a_read_is_of_its_own_volume(stage: Stage, each_place: Places) -> None:
    """While X is read, X's host writes next to it, and then the snapshot's host writes to the page that is now
    the snapshot's alone. X's reader must not see that (P5)."""

    def scene(place: int) -> bool:
        (s,) = stage.make(Snapshot(stage.x, f"S{place}"))
        at = place % PAGES * PAGE
        before = stage.read(stage.x, at)
        seen: list[bytes] = []

        def others() -> None:
            stage.write(stage.x, at + BLOCK, bytes_of("n"))
            stage.write(s, at, bytes_of("!"))

        again = held_before(place, lambda: seen.append(stage.read(stage.x, at)), others)
        assert seen == [before], place
        return again

    each_place(scene)


def test_a_read_across_pages_is_of_its_own_volume(stage: Stage, each_place: Places) -> None:
    def scene(place: int) -> bool:
        (s,) = stage.make(Snapshot(stage.x, f"S{place}"))
        at = place % (PAGES - 1) * PAGE
        before = stage.read(stage.x, at, 2 * PAGE)
        seen: list[bytes] = []

        def others() -> None:
            stage.write(stage.x, at + PAGE, before[PAGE : PAGE + BLOCK])
            stage.write(s, at + PAGE, bytes_of("!"))

        again = held_before(place, lambda: seen.append(stage.read(stage.x, at, 2 * PAGE)), others)
        assert seen == [before], place
        return again

    each_place(scene)


def test_a_write_while_the_snapshot_gets_deleted(stage: Stage, each_place: Places) -> None:
    """The page goes from shared to owned in the middle of the write: another block's write must survive."""

    def scene(place: int) -> bool:
        (s,) = stage.make(Snapshot(stage.x, f"S{place}"))
        at = place % PAGES * PAGE
        a, b = letters(place)

        def others() -> None:
            stage.pool.apply([Delete(s)])
            stage.write(stage.x, at + BLOCK, b)

        again = held_before(place, lambda: stage.write(stage.x, at, a), others)
        assert stage.read(stage.x, at, 2 * BLOCK) == a + b, place
        return again

    each_place(scene)


def fill_up(stage: Stage, image: int) -> None:
    with suppress(PoolFull):
        stage.write(image, 0, bytes_of("y", 2 * PAGES * PAGE))


@in_a_small_pool
def test_a_freed_page_is_not_reused_under_a_read(stage: Stage, each_place: Places) -> None:
    """X's page is discarded, freed, and given to another volume while X is read (P4, P5)."""
    y = stage.create("Y", 2 * PAGES)

    def scene(place: int) -> bool:
        at = place % PAGES * PAGE
        stage.discard(y, 0, 2 * PAGES * PAGE)
        stage.free_what_was_let_go()
        stage.write(stage.x, at, bytes_of("x", PAGE))
        seen: list[bytes] = []

        def others() -> None:
            stage.discard(stage.x, at, PAGE)
            stage.free_what_was_let_go()
            fill_up(stage, y)

        again = held_before(place, lambda: seen.append(stage.read(stage.x, at)), others)
        assert seen[0] in (bytes_of("x"), bytes(BLOCK)), place
        return again

    each_place(scene)


@in_a_small_pool
def test_a_freed_page_is_not_reused_under_a_write(stage: Stage, each_place: Places) -> None:
    """As above for a write, be it in place: it must not land in a page that is another volume's by now."""
    y = stage.create("Y", 2 * PAGES)

    def scene(place: int) -> bool:
        at = place % PAGES * PAGE
        stage.discard(y, 0, 2 * PAGES * PAGE)
        stage.free_what_was_let_go()
        stage.write(stage.x, at, bytes_of("x", PAGE))

        def others() -> None:
            stage.discard(stage.x, at, PAGE)
            stage.free_what_was_let_go()
            fill_up(stage, y)

        def write() -> None:
            with suppress(PoolFull):
                stage.write(stage.x, at, bytes_of("!"))

        again = held_before(place, write, others)
        assert b"!" not in stage.read(y, 0, 2 * PAGES * PAGE), place
        assert stage.read(stage.x, at) in (bytes_of("!"), bytes(BLOCK)), place
        return again

    each_place(scene)


def check_snapshot(stage: Stage, place: int, at: int, either: tuple[bytes, bytes], later: bytes) -> None:
    """It has one of `either`, what was there before and what was written; and stays so when `later` is written."""
    (s,) = stage._passing
    in_snapshot = stage.read(s, at)
    assert in_snapshot in either, place
    assert stage.read(stage.x, at) == either[1], place
    stage.write(stage.x, at, later)
    assert stage.read(s, at) == in_snapshot, place


def test_a_write_while_a_snapshot_is_taken(stage: Stage, each_place: Places) -> None:
    """The write is in the snapshot or not; what is written after both is never."""

    def scene(place: int) -> bool:
        stage.make()
        at = place % PAGES * PAGE
        before = stage.read(stage.x, at)
        a, b = letters(place)
        again = held_before(
            place, lambda: stage.make(Snapshot(stage.x, f"S{place}")), lambda: stage.write(stage.x, at, a)
        )
        check_snapshot(stage, place, at, (before, a), b)
        return again

    each_place(scene)


def test_a_snapshot_is_taken_while_a_write_is_held(stage: Stage, each_place: Places) -> None:
    """The other way round: whatever the write had found before the snapshot, it must not write into it."""

    def scene(place: int) -> bool:
        stage.make()
        at = place % PAGES * PAGE
        before = stage.read(stage.x, at)
        a, b = letters(place)
        again = held_before(
            place, lambda: stage.write(stage.x, at, a), lambda: stage.make(Snapshot(stage.x, f"S{place}"))
        )
        check_snapshot(stage, place, at, (before, a), b)
        return again

    each_place(scene)


def test_a_write_while_the_volume_is_rolled_back(stage: Stage, each_place: Places) -> None:
    """The write comes before or after the rollback, and never touches the snapshot."""

    def scene(place: int) -> bool:
        (s, _) = stage.make(Snapshot(stage.x, f"S{place}"), Clone(-1, f"C{place}"))
        at = place % PAGES * PAGE
        before = stage.read(s, at, PAGE)
        a, b = letters(place)
        stage.write(stage.x, at, b)
        again = held_before(place, lambda: stage.write(stage.x, at, a), lambda: stage.pool.apply([Replace(stage.x, s)]))
        assert stage.read(stage.x, at, PAGE) in (before, a + before[BLOCK:]), place
        assert stage.read(s, at, PAGE) == before, place
        return again

    each_place(scene)


def test_a_write_while_its_volume_is_deleted(stage: Stage, each_place: Places) -> None:
    """It is done before, or refused; it never lands in a page that the clone has, or that is given on."""

    def scene(place: int) -> bool:
        d, c = stage.make(Clone(stage.x, f"D{place}"), Clone(stage.x, f"C{place}"))
        at = place % PAGES * PAGE
        before = stage.read(c, at, PAGE)

        def write() -> None:
            with suppress(VolumeNotFound):
                stage.write(d, at, bytes_of("!"))

        def others() -> None:
            stage.pool.apply([Delete(d)])
            stage.free_what_was_let_go()
            stage.write(c, at + BLOCK, before[BLOCK : 2 * BLOCK])

        again = held_before(place, write, others)
        assert stage.read(c, at, PAGE) == before, place
        assert stage.read(stage.x, at, PAGE) == before, place
        return again

    each_place(scene)


def test_two_writers_of_a_hole(stage: Stage, each_place: Places) -> None:
    """Neither write is lost when both find the page missing; one writes a part, the other the whole."""
    y = stage.create("Y", 64 * PAGES)
    at = itertools.count(0, PAGE)

    def scene(place: int) -> bool:
        here = next(at)
        again = held_before(
            place, lambda: stage.write(y, here, bytes_of("a")), lambda: stage.write(y, here + BLOCK, bytes_of("b"))
        )
        assert stage.read(y, here, 3 * BLOCK) == bytes_of("a") + bytes_of("b") + bytes(BLOCK), place
        return again

    each_place(scene)
