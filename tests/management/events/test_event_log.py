"""The event log: nothing told is lost or out of order, it is bounded, and telling never waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import structlog

from offsite import events as kinds
from offsite.clock import SystemClock
from offsite.errors import StateDirectoryError
from offsite.events import Severity, Source, acting_for
from offsite.management.events import event_log as module
from offsite.management.events.event_log import EventFilter, EventLog
from offsite.store.database import Database
from tests.management.management_bench import new_database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    (tmp_path / "state.db").write_bytes(new_database())
    made = Database(tmp_path / "state.db")
    yield made
    made.close()


@pytest.fixture
def log(database: Database) -> Iterator[EventLog]:
    made = EventLog(database, SystemClock())
    yield made
    made.stop(5)


def test_what_was_told_is_kept_newest_first(log: EventLog) -> None:
    log.report(kinds.VOLUME_CREATED, "Volume Sales was created.")
    log.report(kinds.POOL_FULL, "Pool A is full.")
    newest, older = log.newest(10)
    assert (newest.message, newest.code, newest.severity) == ("Pool A is full.", 570, Severity.CRITICAL)
    assert "ENOSPC" in newest.recommended_action
    assert older.id < newest.id
    assert abs(older.at - time.time()) < 60
    assert log.newest(1) == [newest]


def test_only_so_many_are_kept(database: Database, log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.KEPT_MAX, Source.SYSTEM, 20)
    for number in range(100):
        log.report(kinds.MAP_CHANGED, str(number))
        if number % 10 == 0:
            log.flush(5)
    assert [each.message for each in log.newest(1000)] == [str(number) for number in range(99, 79, -1)]
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM events").scalar() == 20


def fill(log: EventLog, kind: kinds.EventKind, count: int) -> None:
    for number in range(count):
        log.report(kind, f"noise {number}")
        if number % 500 == 0:
            log.flush(30)


def test_no_number_of_failed_logins_or_of_a_peers_events_pushes_out_what_a_user_did(
    database: Database, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for source in Source:
        monkeypatch.setitem(module.KEPT_MAX, source, 20)
    with acting_for(Source.OPERATOR):
        log.report(kinds.USER_CHANGED, "User eve was created.")
    log.report(kinds.POOL_FAILED, "The disk failed.")
    log.report(kinds.SYSTEM_STARTED, "Started.")
    fill(log, kinds.LOGIN_FAILED, 100)
    with acting_for(Source.PEER):
        fill(log, kinds.SET_CREATED, 100)
        fill(log, kinds.RUN_FAILED, 100)
        log.report(kinds.LOGIN_FAILED, "From the peer port.")
    fill(log, kinds.RUN_STARTED, 30)
    messages = [each.message for each in log.newest(1000)]
    assert "User eve was created." in messages
    assert "The disk failed." in messages, "a system's routine work does not push out what broke"
    assert "Started." not in messages, "what is told is bounded"
    with database.read() as connection:
        counts = connection.exec_driver_sql("SELECT ring, count(*) FROM events GROUP BY ring ORDER BY ring").all()
    assert [tuple(each) for each in counts] == [
        ("operator", 1),
        ("peer", 20),
        ("peer: severe", 20),
        ("stranger: severe", 20),
        ("system", 20),
        ("system: severe", 1),
    ]


def test_noise_that_waits_for_a_slow_disk_takes_no_place_of_others(database: Database, log: EventLog) -> None:
    with database.transaction(), acting_for(Source.STRANGER):
        for _ in range(module.WAITING_MAX + 100):
            log.report(kinds.LOGIN_FAILED, "noise")
        with acting_for(Source.OPERATOR):
            log.report(kinds.USER_CHANGED, "User eve was created.")
    assert log.newest(1)[0].message == "User eve was created."


def test_telling_does_not_wait_while_the_database_is_busy(database: Database, log: EventLog) -> None:
    """Who tells may be in the middle of a host's write, or hold the lock that the database waits for."""
    with database.transaction():
        begun = time.perf_counter()
        for number in range(module.WAITING_MAX + 100):
            log.report(kinds.POOL_FULL, str(number))
        assert time.perf_counter() - begun < 5
        assert not log.flush(0.01)
    assert log.flush(5)
    kept = len(log.newest(10_000))
    assert module.WAITING_MAX <= kept <= module.WAITING_MAX + 100, "what waits is bounded, the newest are left out"


def test_an_event_cannot_look_like_another_one(log: EventLog) -> None:
    log.report(kinds.LOGIN_FAILED, "A login as x\n2027-01-01 00:00:00 INFORMATIONAL all is well\x1b[2J\u202e failed.")
    (event,) = log.newest(1)
    assert event.message == ("A login as x\\n2027-01-01 00:00:00 INFORMATIONAL all is well\\x1b[2J\\u202e failed.")


def test_a_stop_keeps_what_waits(database: Database) -> None:
    log = EventLog(database, SystemClock())
    log.report(kinds.SYSTEM_STOPPED, "The end.")
    log.stop(5)
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT message FROM events").scalars().all() == ["The end."]


def test_an_event_is_logged_with_its_level_and_a_long_one_is_cut(log: EventLog) -> None:
    with structlog.testing.capture_logs() as lines:
        log.report(kinds.RUN_FAILED, "x" * 5000)
    assert [(line["log_level"], line["code"], len(line["event"])) for line in lines] == [("error", 583, 1000)]
    assert len(log.newest(1)[0].message) == 1000
    log.report(kinds.RUN_FAILED, "\x1b" * 900)
    assert len(log.newest(1)[0].message) == 1000, "also when it grows by its escapes"


@pytest.fixture
def unwritable(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """The database cannot be written, until this is called."""
    transaction = Database.transaction

    def refused(_self: Database) -> NoReturn:
        raise StateDirectoryError("database or disk is full")

    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(Database, "transaction", refused)
    yield lambda: monkeypatch.setattr(Database, "transaction", transaction)
    monkeypatch.setattr(Database, "transaction", transaction)


def test_events_that_cannot_be_kept_are_shown_and_kept_later(
    database: Database, log: EventLog, unwritable: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """A disk that is full or turned read-only is what an operator has to see in the events."""
    log.report(kinds.POOL_FULL, "The disk is full.")
    log.report(kinds.MAP_CHANGED, "A map.")
    assert not log.flush(60)
    shown = log.newest(10)
    assert [each.message for each in shown] == ["A map.", "The disk is full."]
    assert [each.message for each in log.newest(1)] == ["A map."]
    assert [each.message for each in log.newest(10, EventFilter(errors_only=True))] == ["The disk is full."]
    assert [each.message for each in log.newest(10, EventFilter(last_id=shown[1].id))] == ["The disk is full."]
    assert log.newest(10, EventFilter(before=shown[1].at)) == []
    assert log.newest(10, EventFilter(since=shown[0].at + 60)) == []
    assert log.newest(10, EventFilter(first_id=shown[0].id + 1)) == []
    unwritable()
    deadline = time.monotonic() + 60
    while not log.flush(1):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert log.newest(10) == shown, "with the ids under which they were shown"
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM events").scalar() == 2
    assert capsys.readouterr().out.count("cannot store events") == 1, "not once more at each try"


@pytest.mark.usefixtures("unwritable")
def test_so_many_events_wait_for_a_database_that_cannot_be_written(log: EventLog) -> None:
    for number in range(module.WAITING_MAX + 100):
        log.report(kinds.MAP_CHANGED, str(number))
    assert len(log.newest(10_000)) == module.WAITING_MAX


@pytest.mark.usefixtures("unwritable")
def test_a_stop_does_not_wait_for_a_database_that_cannot_be_written(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 3600.0)
    log = EventLog(database, SystemClock())
    log.report(kinds.SYSTEM_STOPPED, "The end.")
    log.flush(60)
    log.stop(60)
    assert not log._thread.is_alive()


def test_many_threads_may_tell_at_once(log: EventLog) -> None:

    def tell(thread: int) -> None:
        for number in range(50):
            log.report(kinds.MAP_CHANGED, f"{thread}.{number}")

    threads = [threading.Thread(target=tell, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    messages = [each.message for each in reversed(log.newest(1000))]
    assert len(messages) == 200
    for i in range(4):
        assert [each for each in messages if each.startswith(f"{i}.")] == [f"{i}.{n}" for n in range(50)]
