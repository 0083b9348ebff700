"""Places for connections: nobody takes them all, and who means well gets one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from offsite.admission import LOCAL, PATIENCE_SECONDS, Admission, Listens, Place, network_of
from offsite.errors import NoPlace
from offsite.events import CONNECTIONS_REFUSED, EventKind


class ManualClock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds


class Listener:
    """An Admission with 64 places for the known, 8 for strangers, 3 of them for one network."""

    def __init__(self, listens: Listens = "port and Unix socket") -> None:
        self.clock = ManualClock()
        self.events: list[str] = []
        self.ended: list[str] = []
        self.known_max = 64
        self.admission = Admission(
            "over NBD",
            lambda: self.known_max,
            self._report,
            self.clock,
            listens=listens,
            strangers_max=8,
            strangers_of_network_max=3,
        )

    def _report(self, kind: EventKind, message: str) -> None:
        assert kind is CONNECTIONS_REFUSED
        self.events.append(message)

    def arrive(self, address: str) -> Place:
        place = self.admission.arrive(address, lambda: self.ended.append(address))
        self.clock.seconds += 0.001
        return place

    def settle(self, holder: str, count: int = 1) -> list[Place]:
        places = []
        for _ in range(count):
            place = self.arrive(f"10.9.{len(holder)}.1")
            try:
                place.settle(holder)
            except NoPlace:
                place.leave()
                raise
            places.append(place)
        return places


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        (LOCAL, LOCAL),
        ("no address", "no address"),
    ],
)
def test_a_network_is_what_one_host_may_have(address: str, network: str) -> None:
    assert network_of(address) == network


def test_strangers_take_no_places_of_the_known(listener: Listener) -> None:
    for number in range(8):
        listener.arrive(f"10.0.{number}.1")
    listener.clock.seconds += PATIENCE_SECONDS
    assert len(listener.settle("London", 32)) == 32


def test_a_newcomer_takes_the_place_of_the_oldest_of_its_own_network(listener: Listener) -> None:
    """So a host gets in though others at its address, behind one router, hold all their places."""
    for last in range(3):
        listener.arrive(f"2001:db8::{last}")
    listener.clock.seconds += PATIENCE_SECONDS
    listener.arrive("2001:db8::ffff").settle("tls:db")
    assert listener.ended == ["2001:db8::0"]


def test_a_newcomer_takes_the_place_of_the_oldest_where_there_are_most(listener: Listener) -> None:
    for address in ("10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.3", "10.0.0.3", "10.0.0.3", "10.0.0.4", "10.0.0.4"):
        listener.arrive(address)
    listener.clock.seconds += PATIENCE_SECONDS
    listener.arrive("10.0.0.5")
    listener.arrive("10.0.0.6")
    assert listener.ended == ["10.0.0.3", "10.0.0.2"]
    assert listener.admission.counts() == (8, 0)


def test_nobody_is_displaced_before_having_had_a_moment(listener: Listener) -> None:
    for _ in range(3):
        listener.arrive("10.0.0.1")
    with pytest.raises(NoPlace, match="too many unauthenticated connections over NBD"):
        listener.arrive("10.0.0.1")
    assert listener.ended == []
    assert listener.admission.counts() == (3, 0)
    listener.clock.seconds = 1000.0 + PATIENCE_SECONDS
    listener.arrive("10.0.0.1")
    assert listener.ended == ["10.0.0.1"], "the moment is over"


def test_strangers_from_the_network_take_no_place_of_the_unix_socket(listener: Listener) -> None:
    for number in range(8):
        listener.arrive(f"10.0.{number}.1")
    listener.arrive(LOCAL)
    assert listener.ended == []
    for _ in range(2):
        listener.arrive(LOCAL)
    listener.clock.seconds += PATIENCE_SECONDS
    listener.arrive("10.1.0.1")
    assert listener.ended == ["10.0.0.1"], "the oldest of the network, not of the Unix socket, which has most"


@pytest.mark.parametrize("greedy", ["tls:db", LOCAL])
def test_no_holder_takes_all_places(listener: Listener, greedy: str) -> None:
    assert len(listener.settle(greedy, 48)) == 48
    with pytest.raises(NoPlace, match=r"has 48 of 48 connections over NBD; the rest are reserved for others"):
        listener.settle(greedy)
    assert len(listener.settle("tls:web", 4)) == 4
    with pytest.raises(NoPlace, match="reserved for others"):
        listener.settle("tls:web")
    assert len(listener.settle("tls:mail", 4)) == 4


@pytest.mark.parametrize(("known_max", "most"), [(8, 6), (3, 2)])
def test_of_few_places_the_last_ones_are_kept_for_others_too(listener: Listener, known_max: int, most: int) -> None:
    """A sixteenth of them, or a quarter, is less than one."""
    listener.known_max = known_max
    listener.settle("tls:db", most)
    with pytest.raises(NoPlace, match="reserved for others"):
        listener.settle("tls:db")
    assert listener.settle("tls:web")


def test_the_very_last_places_are_the_unix_sockets(listener: Listener) -> None:
    held = [place for number in range(15) for place in listener.settle(f"tls:{number}", 4)]
    with pytest.raises(NoPlace, match="the maximum of connections over NBD is reached: 60"):
        listener.settle("tls:late")
    assert len(listener.settle(LOCAL, 4)) == 4
    with pytest.raises(NoPlace):
        listener.settle(LOCAL)
    for place in held[:5]:
        place.leave()
    assert listener.settle("tls:late")


def test_a_port_without_a_unix_socket_keeps_no_places_for_one() -> None:
    listener = Listener("port")
    for number in range(16):
        listener.settle(f"user {number}", 4)
    with pytest.raises(NoPlace, match="is reached: 64"):
        listener.settle("user late")


def test_a_port_without_a_unix_socket_keeps_places_for_others() -> None:
    listener = Listener("port")
    listener.settle("user greedy", 48)
    with pytest.raises(NoPlace, match="reserved for others"):
        listener.settle("user greedy")


def test_a_unix_socket_alone_gives_all_its_places() -> None:
    listener = Listener("Unix socket")
    listener.settle(LOCAL, 64)
    with pytest.raises(NoPlace, match="the maximum of connections over NBD is reached: 64"):
        listener.settle(LOCAL)


def test_who_may_not_settle_is_a_stranger_as_before(listener: Listener) -> None:
    listener.settle("tls:db", 48)
    place = listener.arrive("10.0.0.1")
    with pytest.raises(NoPlace):
        place.settle("tls:db")
    assert listener.admission.counts() == (1, 48)
    listener.known_max = 128
    place.settle("tls:db")
    assert listener.admission.counts() == (0, 49)


def test_refusals_are_logged_once_a_second_and_told_once_in_a_while(listener: Listener) -> None:
    for _ in range(3):
        listener.arrive("10.0.0.1")
    with capture_logs() as lines:
        for _ in range(50):
            with pytest.raises(NoPlace):
                listener.arrive("10.0.0.1")
        listener.clock.seconds += 600
        listener.arrive("10.0.0.1")
    assert [line["count"] for line in lines] == [1, 50]
    assert len(listener.events) == 2
    assert listener.events[0].startswith("A connection from 10.0.0.1 was refused: too many unauthenticated connections")
    assert "(50 refusals since the last such event)" in listener.events[1]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 11), st.integers(0, 5)), max_size=200))
def test_counts_are_what_there_is_whatever_happens(steps: list[tuple[int, int, int]]) -> None:
    """Any order of arriving, settling, leaving and leaving again: bounds hold, and at the end nobody is there."""
    listener = Listener()
    places: list[Place] = []
    for what, who, which in steps:
        listener.clock.seconds += which / 4
        try:
            if what <= 1:
                places.append(listener.arrive(LOCAL if who == 0 else f"10.0.0.{who}"))
            elif places and what == 2:
                places[who % len(places)].settle(LOCAL if which == 0 else f"tls:{which}")
            elif places:
                places[who % len(places)].leave()
        except NoPlace:
            continue
        strangers, known = listener.admission.counts()
        assert strangers <= 8 + 3
        assert known <= 64
    for place in places:
        place.leave()
    assert listener.admission.counts() == (0, 0)
