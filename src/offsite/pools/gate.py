"""Who is inside an image: so that a snapshot waits for writes in flight, and a freed page for its readers.

    idle ── begin ──► inside (at an epoch) ── end ──► idle
      ▲                  │ a gate is closed before it got in
      └── gate opens ────┘

A gate may be handed over to another before some of its images (`keep_closed`): these open later.

Two questions are asked. A snapshot asks whether anyone is inside the images it takes: it closes a gate
before them, waits until those inside have left, and opens it again. The reclaimer asks whether anyone has
been inside since before a page was freed: every entry notes the pool's epoch.

On the hot path both cost two stores and one comparison, and no lock. That is sound because the two sides
store first and look afterwards: a visitor stores its entry, then looks for a gate; a closer stores the
gate, then looks for visitors. One of them sees the other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from offsite.errors import InUse

IDLE = 0


class Gate:
    """Closed before some images while their content has to stand still."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.left = threading.Condition()

    def someone_left(self) -> None:
        with self.left:
            self.left.notify_all()


class Visitors:
    """Everyone who uses one image, and the gate before it."""

    def __init__(self) -> None:
        self.gate: Gate | None = None
        self.inside: set[Visitor] = set()  # replaced, never changed, so that it can be walked without a lock

    def add(self, visitor: Visitor) -> None:
        self.inside = self.inside | {visitor}

    def remove(self, visitor: Visitor) -> None:
        self.inside = self.inside - {visitor}


class Visitor:
    """One thread's way in and out of one image."""

    __slots__ = ("entered", "visitors")

    def __init__(self, visitors: Visitors) -> None:
        self.visitors = visitors
        self.entered = IDLE  # or the pool's epoch when it came in

    def wait_for_gate(self) -> None:
        """Steps back from the closed gate until it opens; `entered` is IDLE afterwards."""
        while (gate := self.visitors.gate) is not None:
            self.entered = IDLE
            gate.someone_left()
            gate.opened.wait()
        self.entered = IDLE


def close_gate(images: Iterable[Visitors], deadline_seconds: float) -> Gate:
    """Returns once nobody is inside any of `images`, and keeps everyone out until `open_gate`.

    Raises InUse at the deadline, with the gate open again.
    """
    gate = Gate()
    images = list(images)
    for image in images:
        image.gate = gate
    deadline = time.monotonic() + deadline_seconds
    with gate.left:
        while any(visitor.entered for image in images for visitor in image.inside):
            if not gate.left.wait(max(0.0, deadline - time.monotonic())) and time.monotonic() >= deadline:
                break
        else:
            return gate
    open_gate(gate, images)
    raise InUse(f"timed out after {deadline_seconds:g} s: a read or write is still active; the disk does not answer")


def keep_closed(images: Iterable[Visitors]) -> Gate:
    """A gate before images that nobody is inside of: new ones, or those of a gate that is about to open."""
    gate = Gate()
    for image in images:
        image.gate = gate
    return gate


def open_gate(gate: Gate, images: Iterable[Visitors]) -> None:
    """Opens those of `images` that are still behind this gate."""
    for image in images:
        if image.gate is gate:
            image.gate = None
    gate.opened.set()
