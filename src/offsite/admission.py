"""Who gets a connection: places are counted, so that nobody takes them all. No I/O; time comes from a clock.

    arrive ──▶ stranger ──settle──▶ known, as one holder ──leave──▶ gone
                  └───leave, or displaced by a newer one ─────────────▲

Strangers have shown nothing yet: they are in a handshake, or have not logged in. They have places of their own, so that
however many come, those who are known find theirs. There are so many for one network, and so many for all of them. When
there is none left, the newest takes the place of the one that has been a stranger longest: who means well needs a
moment only, and so gets in, also where others from the same address hold all places.

A holder is who was made out: an initiator, a peer, a user. The last quarter of the places for the known is kept for
holders that have few; the last sixteenth for this machine's Unix socket, where the listener has one beside its port. A
listener that is a Unix socket alone has one holder, who may have all places.
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable
from typing import Literal

import structlog

from offsite.clock import Clock
from offsite.errors import NoPlace
from offsite.events import CONNECTIONS_REFUSED, Report

LOCAL = "unix"
"""The address of all that comes over a Unix socket, and the holder that has a reserve of its own."""

Listens = Literal["port", "port and Unix socket", "Unix socket"]

STRANGERS_MAX, STRANGERS_OF_NETWORK_MAX = 64, 16
PATIENCE_SECONDS = 1.0  # so long nobody is displaced: a flood would displace whoever means well before he gets on
EVENT_SECONDS = 600.0
LOG_SECONDS = 1.0

_log = structlog.get_logger(__name__)


class Place:
    """A connection's. `leave` it in any case; that may be done twice."""

    def __init__(self, admission: Admission, network: str, displace: Callable[[], None], since: float) -> None:
        self.network = network
        self.holder: str | None = None  # of a stranger: None
        self.since = since
        self.displace = displace
        self._admission = admission

    def settle(self, holder: str) -> None:
        """It is known now who this is. Raises NoPlace; then it is a stranger as before. Later calls do nothing."""
        self._admission.settle(self, holder)

    def leave(self) -> None:
        self._admission.leave(self)


class Admission:
    """Of one listener. Safe to use from any thread."""

    def __init__(
        self,
        what: str,
        known_max: Callable[[], int],
        report: Report,
        clock: Clock,
        *,
        listens: Listens = "port and Unix socket",
        strangers_max: int = STRANGERS_MAX,
        strangers_of_network_max: int = STRANGERS_OF_NETWORK_MAX,
    ) -> None:
        """`what` names the listener in sentences. `known_max` is asked each time, in the thread of who settles."""
        self._what = what
        self._known_max = known_max
        self._listens = listens
        self._strangers_max = strangers_max
        self._strangers_of_network_max = strangers_of_network_max
        self._clock = clock
        self._refusals = _Refusals(what, report, clock)
        self._lock = threading.Lock()
        self._strangers: dict[str, list[Place]] = {}  # by network, the oldest first
        self._held: dict[str, set[Place]] = {}  # by holder

    def arrive(self, address: str, displace: Callable[[], None]) -> Place:
        """The place of a connection from `address`, which is LOCAL for a Unix socket. Raises NoPlace.

        `displace` ends the connection, at once, when its place is given to another while it is a stranger. Any thread
        may call it.
        """
        place = Place(self, network_of(address), displace, self._clock.monotonic())
        with self._lock:
            displaced = self._make_room(place)
            if displaced is not place:
                self._strangers.setdefault(place.network, []).append(place)
        if displaced is place:
            reason = f"too many unauthenticated connections {self._what}"
            self._refusals.tell(address, reason)
            raise NoPlace(reason)
        if displaced is not None:
            self._refusals.tell(
                displaced.network,
                f"it was the oldest unauthenticated connection {self._what}, and a new one needed its place",
            )
            displaced.displace()
        return place

    def settle(self, place: Place, holder: str) -> None:
        """See Place.settle."""
        known_max = self._known_max()
        with self._lock:
            if place.holder is not None:
                return
            refusal = self._refusal(holder, known_max)
            if not refusal:
                self._forget_stranger(place)
                place.holder = holder
                self._held.setdefault(holder, set()).add(place)
        if refusal:
            self._refusals.tell(holder, refusal)
            raise NoPlace(refusal)

    def leave(self, place: Place) -> None:
        """See Place.leave."""
        with self._lock:
            if place.holder is None:
                self._forget_stranger(place)
                return
            places = self._held.get(place.holder, set())
            places.discard(place)
            if not places:
                self._held.pop(place.holder, None)

    def counts(self) -> tuple[int, int]:
        """How many strangers there are, and how many known."""
        with self._lock:
            return sum(map(len, self._strangers.values())), sum(map(len, self._held.values()))

    def _make_room(self, place: Place) -> Place | None:
        """Whose place goes: of a stranger that is there, or `place` itself, for which there is none; None: nobody's."""
        mine = self._strangers.get(place.network, [])
        elsewhere = [places for network, places in self._strangers.items() if network != LOCAL]
        if len(mine) >= self._strangers_of_network_max:
            oldest = mine[0]
        elif place.network != LOCAL and sum(map(len, elsewhere)) >= self._strangers_max:
            oldest = max(elsewhere, key=len)[0]
        else:
            return None
        if place.since - oldest.since < PATIENCE_SECONDS:
            return place
        self._forget_stranger(oldest)
        return oldest

    def _refusal(self, holder: str, known_max: int) -> str:
        """Why `holder` may have no place more; empty if it may."""
        has, taken = len(self._held.get(holder, ())), sum(map(len, self._held.values()))
        reserve = known_max // 16 if self._listens == "port and Unix socket" and holder != LOCAL else 0
        if taken >= known_max - reserve:
            return f"the maximum of connections {self._what} is reached: {taken}"
        if self._listens == "Unix socket":
            return ""
        if has >= max(1, known_max // 16) and taken >= known_max - max(1, known_max // 4):
            return f"{holder} has {has} of {taken} connections {self._what}; the rest are reserved for others"
        return ""

    def _forget_stranger(self, place: Place) -> None:
        places = self._strangers.get(place.network, [])
        if place in places:
            places.remove(place)
            if not places:
                del self._strangers[place.network]


class _Refusals:
    """Tells of refusals, and how many there were since: in the log once a second, as an event once in ten minutes."""

    def __init__(self, what: str, report: Report, clock: Clock) -> None:
        self._what = what
        self._report = report
        self._clock = clock
        self._lock = threading.Lock()
        self._logged_at = self._reported_at = float("-inf")
        self._unlogged = self._unreported = 0

    def tell(self, who: str, reason: str) -> None:
        with self._lock:
            now = self._clock.monotonic()
            self._unlogged += 1
            self._unreported += 1
            logged = reported = 0
            if now - self._logged_at >= LOG_SECONDS:
                self._logged_at, logged, self._unlogged = now, self._unlogged, 0
            if now - self._reported_at >= EVENT_SECONDS:
                self._reported_at, reported, self._unreported = now, self._unreported, 0
        if logged:
            _log.warning("connection refused", client=who, reason=reason, count=logged)
        if reported:
            more = f" ({reported} refusals since the last such event)" if reported > 1 else ""
            self._report(CONNECTIONS_REFUSED, f"A connection from {who} was refused{more}: {reason}.")


def network_of(address: str) -> str:
    """What one host may have of addresses: an IPv4 address, or the /64 of an IPv6 one. Anything else as it is."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))
