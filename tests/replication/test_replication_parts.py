"""The small parts of replication: fence, locks, login limit, retries, progress, addresses, errors over the wire."""

from __future__ import annotations

import threading
from random import Random

import pytest

from offsite import errors
from offsite.errors import BadParameter, InUse, OffsiteError, PeerRefused, PeerUnreachable, PoolFull, ProtocolError
from offsite.replication.link.identity import same_fingerprint
from offsite.replication.naming.addresses import format_address, parse_address
from offsite.replication.records.set_locks import SetLocks
from offsite.replication.runs.retry_policy import retry_seconds
from offsite.replication.transfer.progress import Progress
from offsite.replication.transfer.receiver.fence import Fence, Fences
from offsite.replication.wire.errors import to_error, to_message
from offsite.replication.wire.exchange import ANSWER_SECONDS, Asking, Receive, Transmit
from offsite.replication.wire.messages import Done, Failed, Holds, Ping, Working
from tests.replication.lockstep import VirtualClock

# -- fence -----------------------------------------------------------------------------------------------------


def test_a_fence_lets_only_its_newest_owner_through() -> None:
    fence = Fence()
    fence.take("old")
    with fence.held_by("old"):
        assert fence.is_owner("old")
    fence.take("new")
    with pytest.raises(InUse, match="a newer connection"), fence.held_by("old"):
        raise AssertionError
    with fence.held_by("new"):
        pass


def test_taking_over_waits_until_the_old_one_is_between_two_batches() -> None:
    fence = Fence()
    fence.take("old")
    taken = threading.Event()

    def take_over() -> None:
        fence.take("new")
        taken.set()

    with fence.held_by("old"):
        thread = threading.Thread(target=take_over)
        thread.start()
        assert not taken.wait(0.05)
        assert fence.is_owner("old")
    assert taken.wait(5)
    thread.join()


def test_an_old_one_that_never_ends_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offsite.replication.transfer.receiver.fence.TAKE_SECONDS", 0.02)
    fence = Fence()
    fence.take("old")
    with fence.held_by("old"), pytest.raises(PeerUnreachable, match="has not ended within"):
        fence.take("new")


def test_each_set_has_one_fence() -> None:
    fences = Fences()
    assert fences.of("a") is fences.of("a") is not fences.of("b")


def test_whoever_else_asks_for_a_set_waits_a_while_and_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offsite.replication.records.set_locks.REQUESTING_SECONDS", 0.05)
    monkeypatch.setattr("offsite.replication.records.set_locks.RECORDING_SECONDS", 0.05)
    locks = SetLocks()

    def someone_else(kind: str, uuid: str) -> str:
        outcome: list[str] = []

        def take() -> None:
            try:
                with getattr(locks, kind)(uuid, "SalesDR"):
                    outcome.append("got it")
            except InUse as error:
                outcome.append(str(error))

        thread = threading.Thread(target=take)
        thread.start()
        thread.join(10)
        return outcome[0]

    with locks.requesting("u", "SalesDR"), locks.recording("u", "SalesDR"), locks.recording("u", "SalesDR"):
        assert "SalesDR has been in use by another request" in someone_else("requesting", "u")
        assert "a step of replication set SalesDR has not ended" in someone_else("recording", "u")
        assert someone_else("requesting", "v") == "got it"
    assert someone_else("requesting", "u") == someone_else("recording", "u") == "got it"


# -- waiting ---------------------------------------------------------------------------------------------------


def test_retries_double_to_ten_minutes_each_shortened_a_little() -> None:
    random = Random(1)
    for failures, most in enumerate([1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600], 1):
        assert most * 0.75 <= retry_seconds("offsite", failures, random) <= most
    assert retry_seconds("offsite", 10**6, random) <= 600


def test_retries_as_on_me4_come_six_times_after_ten_minutes_then_hourly() -> None:
    waits = [retry_seconds("me4", failures, Random(1)) for failures in range(1, 9)]
    assert waits == [600.0] * 6 + [3600.0] * 2


# -- progress --------------------------------------------------------------------------------------------------


def test_progress_tells_rate_and_end() -> None:
    clock = VirtualClock()
    progress = Progress("run", clock.now(), clock)
    assert progress.snapshot().state == "waiting for its turn"
    progress.begin(1000, 1000)
    assert progress.snapshot().expected_end_at is None, "nothing is known yet"
    for _ in range(4):
        clock.time += 1
        progress.scanned(100)
    now = progress.snapshot()
    assert (now.percent, now.bytes_left, now.bytes_total) == (40.0, 600, 1000)
    assert now.rate_bytes_per_second == pytest.approx(100)
    assert now.expected_end_at == pytest.approx(clock.time + 6)
    progress.end("success")
    done = progress.snapshot()
    assert (done.percent, done.bytes_left, done.ended_at, done.expected_end_at) == (100.0, 0, clock.time, None)


def test_progress_of_a_run_that_goes_on_begins_where_it_was() -> None:
    clock = VirtualClock()
    progress = Progress("run", clock.now(), clock)
    progress.begin(1000, 300)
    assert progress.snapshot().percent == 70.0
    clock.time += 1
    progress.scanned(100)
    assert progress.snapshot().rate_bytes_per_second == pytest.approx(100), "what was sent before does not count"


def test_progress_of_a_run_with_nothing_to_send_ends_at_hundred_percent() -> None:
    clock = VirtualClock()
    progress = Progress("run", clock.now(), clock)
    progress.begin(0, 0)
    assert progress.snapshot().percent == 0.0
    progress.end("success")
    assert progress.snapshot().percent == 100.0


# -- asking ----------------------------------------------------------------------------------------------------


def test_someone_who_works_for_ever_is_given_up() -> None:
    clock = VirtualClock()
    machine = Asking("Newark", clock).request(Ping(), Done)
    assert next(machine) == Transmit(Ping())
    assert isinstance(machine.send(None), Receive)
    clock.time += ANSWER_SECONDS - 1
    assert isinstance(machine.send(Working()), Receive), "it is alive: wait on"
    clock.time += 2
    with pytest.raises(PeerUnreachable, match="has not finished a Ping within 600 s"):
        machine.send(Working())


def test_an_answer_to_another_question_is_refused() -> None:
    machine = Asking("Newark", VirtualClock()).request(Ping(), Done)
    next(machine)
    machine.send(None)
    with pytest.raises(ProtocolError, match="Newark answered a Ping with a Holds"):
        machine.send(Holds(role="secondary", generation=1, base=None))


def test_silence_is_told_with_its_length() -> None:
    machine = Asking("Newark", VirtualClock(), 7.0).request(Ping(), Done)
    next(machine)
    machine.send(None)
    with pytest.raises(PeerUnreachable, match="received nothing from Newark for 7 s"):
        machine.send(None)


# -- names and errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("newark", "newark", 7443),
        (" 10.1.2.3:99 ", "10.1.2.3", 99),
        ("[fe80::1]:7000", "fe80::1", 7000),
        ("[fe80::1]", "fe80::1", 7443),
        ("fe80::1", "fe80::1", 7443),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    assert parse_address(text) == (host, port)
    assert parse_address(format_address(host, port)) == (host, port)


@pytest.mark.parametrize("text", ["", ":7443", "host:", "host:0", "host:65536", "host:-1", "[::1", "x" * 256])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(BadParameter, match="is not HOST"):
        parse_address(text)


def test_fingerprints_may_be_written_in_different_ways() -> None:
    assert same_fingerprint("AB:CD:01", "abcd01")
    assert not same_fingerprint("abcd01", "abcd02")


def test_an_error_crosses_the_wire_with_its_kind_and_the_name_of_who_told_it() -> None:
    error = to_error(to_message(PoolFull("pool A is full")), "Newark")
    assert type(error) is PoolFull
    assert str(error) == "Newark: pool A is full"


def test_an_unknown_kind_of_error_is_a_refusal() -> None:
    error = to_error(Failed(error="FluxCapacitorFailed", sentence="no"), "Newark")
    assert type(error) is PeerRefused


@pytest.mark.parametrize("name", ["OSError", "OffsiteError", "SystemExit", "PeerUnreachable", "StateDirectoryError"])
def test_a_peer_cannot_make_us_raise_what_it_likes(name: str) -> None:
    """Above all not PeerUnreachable: that would make a refused run try again for ever."""
    assert type(to_error(Failed(error=name, sentence="x"), "Newark")) is PeerRefused


def test_a_sentence_too_long_for_a_message_is_cut() -> None:
    assert len(to_message(OffsiteError("x" * 10_000)).sentence) == 4096
    assert errors.OffsiteError is OffsiteError
