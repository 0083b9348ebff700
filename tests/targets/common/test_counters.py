"""What hosts do is counted by volume, initiator and port, in bounded memory, and nothing is lost when they go."""

from __future__ import annotations

import threading

import pytest

from offsite.targets.common import counters as counters_module
from offsite.targets.common.counters import Counters, Port, Totals

NBD, OTHER = Port("nbd", "127.0.0.1:10809"), Port("line", "127.0.0.1:1")


def test_living_and_ended_connections_are_added_up_by_each_key() -> None:
    counters = Counters()
    with counters.counting("sales", "tls:web", NBD) as first:
        first.add_read(4096, 0.5)
        first.add_write(100, 0.25)
    with counters.counting("sales", "nbd:unix", NBD) as second, counters.counting("tmp", "nbd:unix", OTHER) as third:
        second.add_read(10, 1.0)
        third.add_write(1, 2.0)
        assert counters.volumes() == {"sales": Totals(2, 4106, 1.5, 1, 100, 0.25), "tmp": Totals(0, 0, 0.0, 1, 1, 2.0)}
        assert counters.initiators()["nbd:unix"] == Totals(1, 10, 1.0, 1, 1, 2.0)
        assert counters.ports() == {NBD: Totals(2, 4106, 1.5, 1, 100, 0.25), OTHER: Totals(0, 0, 0.0, 1, 1, 2.0)}
        living = counters.volumes(), counters.initiators(), counters.ports()
    assert (counters.volumes(), counters.initiators(), counters.ports()) == living


def test_each_request_of_a_batch_takes_as_long_as_the_batch() -> None:
    counters = Counters()
    with counters.counting("sales", "nbd:unix", NBD) as activity:
        activity.batch_reads += 3
        activity.batch_writes += 1
        activity.end_batch(0.5)
        activity.end_batch(100.0)
        assert activity.totals() == Totals(3, 0, 1.5, 1, 0, 0.5)


def test_a_port_that_nobody_has_used_is_there() -> None:
    counters = Counters()
    counters.add_port(NBD)
    assert counters.ports() == {NBD: Totals()}


def test_who_was_here_longest_ago_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Initiators come from outside: however many there are, memory is bounded, and who is connected stays."""
    monkeypatch.setattr(counters_module, "KEPT_MAX", 2)
    counters = Counters()
    with counters.counting("sales", "tls:stays", NBD):
        for initiator in ("tls:a", "tls:b", "tls:a", "tls:c"):
            with counters.counting("sales", initiator, NBD) as activity:
                activity.add_read(1, 0.0)
        assert {name: each.reads for name, each in counters.initiators().items()} == {
            "tls:a": 2,
            "tls:c": 1,
            "tls:stays": 0,
        }
    assert counters.volumes()["sales"].reads == 4


def test_what_is_in_use_is_never_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What earlier connections did to it stays counted: no counter goes back while anybody uses it."""
    monkeypatch.setattr(counters_module, "KEPT_MAX", 2)
    counters = Counters()
    with counters.counting("sales", "tls:web", NBD):
        with counters.counting("sales", "tls:web", NBD) as earlier:
            earlier.add_read(1, 0.0)
        for number in range(5):
            with counters.counting(f"snapshot {number}", f"tls:{number}", NBD):
                pass
        assert (counters.volumes()["sales"].reads, counters.initiators()["tls:web"].reads) == (1, 1)
        assert len(counters.volumes()) == len(counters.initiators()) == 2


def test_connections_that_count_at_once_lose_nothing() -> None:
    counters = Counters()

    def count() -> None:
        with counters.counting("sales", "nbd:unix", NBD) as activity:
            for _ in range(2000):
                activity.batch_reads += 2
                activity.end_batch(0.0)
                counters.volumes()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.volumes()["sales"].reads == 4 * 2 * 2000
