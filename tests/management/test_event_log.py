"""The event log: nothing told is lost or out of order, it is bounded, and telling never waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from offsite import events as kinds
from offsite.clock import SystemClock
from offsite.events import Severity
from offsite.management import event_log as module
from offsite.management.event_log import EventLog
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
    monkeypatch.setattr(module, "EVENTS_MAX", 20)
    for number in range(100):
        log.report(kinds.MAP_CHANGED, str(number))
        if number % 10 == 0:
            log.flush(5)
    assert [each.message for each in log.newest(1000)] == [str(number) for number in range(99, 79, -1)]
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM events").scalar() == 20


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


def test_a_database_that_fails_does_not_end_the_log(
    database: Database, log: EventLog, capsys: pytest.CaptureFixture[str]
) -> None:
    with database.transaction() as connection:
        connection.exec_driver_sql("ALTER TABLE events RENAME TO elsewhere")
    log.report(kinds.MAP_CHANGED, "lost")
    assert log.flush(5)
    with database.transaction() as connection:
        connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO events")
    log.report(kinds.MAP_CHANGED, "kept")
    assert [each.message for each in log.newest(10)] == ["kept"]
    assert "events could not be kept" in capsys.readouterr().out


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
