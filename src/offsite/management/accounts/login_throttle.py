"""How often a password may be tried, on every way in. No I/O and no locks here; the time comes from outside.

An attempt is counted before its password is checked, so that attempts made at the same time do not pass together:

             a limit is reached, by attempts that failed
    ask ──┬───────────────────────────────────────────────▶ Refusal
          │  … or with those that are being checked now
          ├───────────────────────────────────────────────▶ None: ask again when one of them has ended
          └──▶ Ticket ──check of the password──┬─ failed: counted for a minute
                                               ├─ succeeded: taken back; the user is known at that address
                                               └─ not checked after all: taken back

Where attempts come from is a network: an IPv4 address, or the /64 of an IPv6 address, all of which one host may have.

| limit on failures a minute         | of a user at a network | at a network | of a user | altogether |
|------------------------------------|------------------------|--------------|-----------|------------|
| a user known at this network       | 5                      |              |           |            |
| a network that has not failed yet  | 5                      | 20           | 20        | 120        |
| any other                          | 5                      | 20           | 10        | 60         |

So guessing from many addresses is slow, too, and uses nothing up that the rightful user needs at an address from where
they have logged in before; at a new one they compete only with others that are new.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from offsite.admission import network_of

WINDOW_SECONDS = 60.0
PAIR_MAX, NETWORK_MAX = 5, 20
USER_MAX = {"new": 20, "failed": 10}
ALL_MAX = {"new": 120, "failed": 60}
FAILED_SECONDS = 3600.0  # for so long a network counts as one that has failed
KNOWN_SECONDS = 30 * 86400.0  # for so long a user is known where they have logged in
KNOWN_OF_USER_MAX, KNOWN_USERS_MAX = 64, 256
NETWORKS_MAX = 16_384  # of those that failed: more than there can be in FAILED_SECONDS
REFUSALS_MAX = 1024
TELL_SECONDS = 600.0  # that attempts are refused is told once in so long, for each limit

K = TypeVar("K")
V = TypeVar("V")

Outcome = Literal["failed", "succeeded", "not checked"]


@dataclass(frozen=True, slots=True)
class Ticket:
    """An attempt that is counted, until `Throttle.settle` says how it ended."""

    name: str
    network: str
    is_known: bool
    keys: tuple[Hashable, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """`whose` are the attempts that were too many; `is_first` when that was not told for a while."""

    whose: str
    wait_seconds: float
    is_first: bool


@dataclass(slots=True)
class _Count:
    failed: deque[float] = field(default_factory=deque)  # when; the oldest first
    pending: int = 0


class Throttle:
    """Not safe to use from several threads at once."""

    def __init__(self) -> None:
        self._counts: OrderedDict[Hashable, _Count] = OrderedDict()  # used last at the end
        self._failed: OrderedDict[str, float] = OrderedDict()  # networks, and when they failed last
        self._known: OrderedDict[str, OrderedDict[str, float]] = OrderedDict()  # user, network: last success
        self._told: OrderedDict[Hashable, float] = OrderedDict()

    def ask(self, name: str, address: str, now: float) -> Ticket | Refusal | None:
        """Counts an attempt as `name` from `address`, or says why not. None: ask again when another has ended."""
        self._forget(now)
        network = network_of(address)
        is_known = self.is_known(name, address, now)
        limits = list(_limits(name, network, is_known, "failed" if network in self._failed else "new"))
        for key, most, whose in limits:
            count = self._counts.get(key, _Count())
            _drop_old(count, now)
            if len(count.failed) >= most:
                wait_seconds = count.failed[len(count.failed) - most] + WINDOW_SECONDS - now
                return Refusal(whose, wait_seconds, self._is_first(key, now))
            if len(count.failed) + count.pending >= most:
                return None
        for key, _, _ in limits:
            self._counts.setdefault(key, _Count()).pending += 1
            self._counts.move_to_end(key)
        return Ticket(name, network, is_known, tuple(key for key, _, _ in limits))

    def is_known(self, name: str, address: str, now: float) -> bool:
        """Whether this user has logged in from there lately."""
        at = self._known[name].get(network_of(address)) if name in self._known else None
        return at is not None and now - at < KNOWN_SECONDS

    def settle(self, ticket: Ticket, outcome: Outcome, now: float) -> None:
        for key in ticket.keys:
            count = self._counts[key]
            count.pending -= 1
            if outcome == "failed":
                count.failed.append(now)
                self._counts.move_to_end(key)
        if outcome == "failed":
            self._failed[ticket.network] = now
            self._failed.move_to_end(ticket.network)
            _shorten(self._failed, NETWORKS_MAX)
        elif outcome == "succeeded":
            self._counts[_pair(ticket.name, ticket.network)].failed.clear()
            networks = self._known.setdefault(ticket.name, OrderedDict())
            networks[ticket.network] = now
            networks.move_to_end(ticket.network)
            self._known.move_to_end(ticket.name)
            _shorten(networks, KNOWN_OF_USER_MAX)
            _shorten(self._known, KNOWN_USERS_MAX)

    def _is_first(self, key: Hashable, now: float) -> bool:
        if now - self._told.get(key, -TELL_SECONDS) < TELL_SECONDS:
            return False
        self._told[key] = now
        self._told.move_to_end(key)
        _shorten(self._told, REFUSALS_MAX)
        return True

    def _forget(self, now: float) -> None:
        """What is over, of what was not used for longest. The limits on all attempts bound how much there is."""
        while self._failed and now - next(iter(self._failed.values())) >= FAILED_SECONDS:
            self._failed.popitem(last=False)
        while self._counts:
            key, count = next(iter(self._counts.items()))
            _drop_old(count, now)
            if count.failed or count.pending:
                return
            del self._counts[key]


def _drop_old(count: _Count, now: float) -> None:
    while count.failed and now - count.failed[0] >= WINDOW_SECONDS:
        count.failed.popleft()


def _pair(name: str, network: str) -> Hashable:
    return ("pair", name, network)


def _limits(
    name: str, network: str, is_known: bool, kind: Literal["new", "failed"]
) -> Iterator[tuple[Hashable, int, str]]:
    """Key, most and whose attempts they are, the widest limit first."""
    if not is_known:
        yield ("all", kind), ALL_MAX[kind], "from anywhere"
        yield ("user", name, kind), USER_MAX[kind], "of this user"
        yield ("network", network), NETWORK_MAX, f"from {network}"
    yield _pair(name, network), PAIR_MAX, f"of this user from {network}"


def _shorten(mapping: OrderedDict[K, V], most: int) -> None:
    while len(mapping) > most:
        mapping.popitem(last=False)
