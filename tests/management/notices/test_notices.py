"""Notices as commands, in their file, and as they arrive at real servers."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from offsite import events as kinds
from offsite.clock import SystemClock
from offsite.errors import (
    BadParameter,
    InUse,
    NameInUse,
    NotAllowed,
    ObjectNotFound,
    StateDirectoryError,
)
from offsite.events import Severity
from offsite.management.command_table.reply import Question
from offsite.management.events.event_log import Told
from offsite.management.notices import notices as module
from offsite.management.notices.courier import Pace
from offsite.management.notices.notices import Notices
from offsite.management.notices.urls import NoticeNotSent
from offsite.store.database import Database
from offsite.store.settings import NOTICE_INTERVAL, Settings
from tests.management.management_bench import MONITOR, Bench, new_database
from tests.management.notice_receivers import MailServer, WebHook, mail_server, web_hook
from tests.systems import wait_until

SECRET = "s3cr3tS3cr3t"


@pytest.fixture
def hook() -> Iterator[WebHook]:
    with web_hook() as made:
        yield made


@pytest.fixture
def mail() -> Iterator[MailServer]:
    with mail_server() as made:
        yield made


def create(bench: Bench, hook: WebHook, severity: str = "warning", name: str = "operators") -> None:
    url = f"json://london:{SECRET}@127.0.0.1:{hook.port}/hook/{SECRET}"
    bench.do(f"create notice severity {severity} {name}", secrets={"url": url})


def test_the_url_is_asked_for_and_kept_in_a_file_of_its_owner_alone(bench: Bench, hook: WebHook) -> None:
    question = bench.answer("create notice severity warning operators")
    assert question == Question("URL of the service to send to.", "url")
    create(bench, hook)
    path = bench.system.state_directory / "keys" / "notices"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SECRET in path.read_text()
    assert not path.with_name("notices.new").exists()


def test_what_is_shown_told_and_stored_elsewhere_has_no_secret(
    bench: Bench, hook: WebHook, capsys: pytest.CaptureFixture[str]
) -> None:
    create(bench, hook)
    (row,) = bench.do("show notices", MONITOR).rows
    assert row["destination"] == f"json://127.0.0.1:{hook.port}/…"
    hook.status = 404
    bench.refused("test notice operators", NoticeNotSent, "Page not found", "404")
    bench.system.events.report(kinds.RUN_FAILED, "A run failed.")
    wait_until("it was given up", lambda: bench.rows("show notices")[0]["messages-failed"] == 1)
    everything = str(bench.rows("show notices")) + str(bench.rows("show events last 100"))
    assert "Notice operators cannot be sent: the service did not accept the message" in everything
    output = capsys.readouterr()
    for text in (everything, output.out, output.err):
        assert SECRET not in text
    assert "cannot send a notice" in output.out
    for path in bench.system.state_directory.rglob("state.db*"):
        assert SECRET.encode() not in path.read_bytes()


def test_an_event_arrives_at_a_web_hook(bench: Bench, hook: WebHook) -> None:
    create(bench, hook)
    bench.system.events.report(kinds.RUN_FAILED, "A run of replication set SalesDR failed.")
    wait_until("it arrives", lambda: hook.received != [])
    path, headers, body = hook.received[0]
    assert (path, headers["Authorization"].partition(" ")[0]) == (f"/hook/{SECRET}", "Basic")
    assert (body["title"], body["type"]) == ("London: ERROR", "failure")
    assert "ERROR [583] A run of replication set SalesDR failed." in body["message"]
    assert kinds.RUN_FAILED.recommended_action in body["message"]
    wait_until("it is counted", lambda: bench.rows("show notices")[0]["messages-sent"] == 1)
    assert len(hook.received) == 1


def test_an_event_arrives_by_mail(bench: Bench, mail: MailServer) -> None:
    url = (
        f"mailto://london:{SECRET}@127.0.0.1:{mail.port}?smtp=127.0.0.1&mode=insecure"
        "&from=london@example.org&to=ops@example.org"
    )
    bench.do("create notice severity error ops", secrets={"url": url})
    bench.system.events.report(kinds.POOL_FULL, "Pool A is full: ÄÖ.")
    wait_until("it arrives", lambda: mail.received != [])
    (message,) = mail.received
    assert mail.logins == [("london", SECRET)]
    assert mail.recipients == ["ops@example.org"]
    assert message["Subject"] == "London: CRITICAL"
    part = message.get_body(("plain", "html"))
    assert part is not None
    assert "CRITICAL [570] Pool A is full: ÄÖ." in part.get_content()


def test_only_what_is_severe_enough_is_sent(bench: Bench, hook: WebHook) -> None:
    create(bench, hook, "error")
    for kind in (kinds.VOLUME_CREATED, kinds.POOL_THRESHOLD_CROSSED, kinds.POOL_THRESHOLD_CLEARED, kinds.RUN_FAILED):
        bench.system.events.report(kind, kind.severity.name)
    wait_until("it arrives", lambda: hook.received != [])
    assert hook.received[0][2]["title"] == "London: ERROR"


def test_a_test_says_whether_it_arrives(bench: Bench, hook: WebHook) -> None:
    create(bench, hook, "critical")
    (row,) = bench.do("test notice operators").rows
    assert row["messages-sent"] == 1
    assert "This is a test of notice operators of system London." in hook.received[0][2]["message"]
    hook.status = 500
    bench.refused("test notice operators", NoticeNotSent, "500")
    assert len(hook.received) == 2


def test_a_flood_is_one_message(bench: Bench, hook: WebHook) -> None:
    create(bench, hook, "informational")
    for number in range(500):
        bench.system.events.report(kinds.MAP_CHANGED, str(number))
    wait_until("it arrives", lambda: hook.received != [])
    assert re.fullmatch(r"London: \d{2,} events, the worst INFORMATIONAL", hook.received[0][2]["title"])
    assert len(hook.received) == 1, "the others wait for the interval to pass"


def test_events_about_notices_that_fail_are_not_sent_as_notices(bench: Bench, hook: WebHook) -> None:
    """Or two that fail would keep each other busy."""
    create(bench, hook, "informational")
    ((_, courier),) = bench.system.notices._couriers.values()
    wait_until("its creation has arrived", lambda: hook.received != [] and not courier._waiting)
    for kind in (kinds.NOTICE_FAILED, kinds.NOTICE_DELIVERED):
        bench.system.notices.tell(Told(0.0, kind.code, kind.severity, "not sent", ""))
    assert not courier._waiting


def test_when_it_goes_again_an_event_says_so(bench: Bench, hook: WebHook) -> None:
    bench.system.settings.set(NOTICE_INTERVAL, "1")
    create(bench, hook, "error")
    hook.status = 500
    bench.system.events.report(kinds.RUN_FAILED, "one")
    wait_until("it was given up", lambda: bench.rows("show notices")[0]["messages-failed"] == 1)
    hook.status = 200
    bench.do("test notice operators")
    (event,) = bench.rows("show events last 1")
    assert (event["message"], event["severity"]) == (
        "Notice operators recovered: its messages are sent again.",
        "RESOLVED",
    )


def test_wrong_notices_are_refused_with_nothing_changed(bench: Bench, hook: WebHook) -> None:
    create(bench, hook)
    path = bench.system.state_directory / "keys" / "notices"
    before = path.read_bytes()
    url = {"url": f"json://127.0.0.1:{hook.port}"}
    for line, secrets, error, word in (
        ("create notice severity warning operators", url, NameInUse, "'operators'"),
        ("create notice severity resolved other", url, BadParameter, "informational, warning, error, critical"),
        ("create notice severity warning a,b", url, BadParameter, "','"),
        ("create notice severity warning other", {"url": "syslog://"}, BadParameter, "supported scheme"),
        ("create notice other", url, BadParameter, "severity is missing"),
        ("create notice severity warning other url json://h", {}, NotAllowed, "is not accepted among the words"),
        ("delete notice other", {}, ObjectNotFound, "'other'"),
        ("test notice other", {}, ObjectNotFound, "'other'"),
        ("show notices other", {}, ObjectNotFound, "'other'"),
    ):
        with pytest.raises(error, match=word):
            bench.do(line, secrets=secrets)
    for line in ("create notice severity warning other", "delete notice operators", "test notice operators"):
        with pytest.raises(NotAllowed, match="role manage"):
            bench.do(line, MONITOR, secrets=url)
    assert path.read_bytes() == before
    assert bench.names("show notices") == ["operators"]


def test_there_are_so_many_notices_and_no_more(bench: Bench, hook: WebHook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NOTICES_MAX", 2)
    create(bench, hook, name="a")
    create(bench, hook, name="b")
    with pytest.raises(InUse, match="there are 2 notices"):
        create(bench, hook, name="c")


def test_a_deleted_notice_is_gone_from_the_file_and_gets_nothing_more(bench: Bench, hook: WebHook) -> None:
    create(bench, hook, "informational", "a")
    create(bench, hook, "critical", "b")
    question = bench.answer("delete notice a", asks=True)
    assert question == Question("Delete notice a?")
    bench.do("delete notice a")
    assert bench.names("show notices") == ["b"]
    content = json.loads((bench.system.state_directory / "keys" / "notices").read_text())
    assert [each["name"] for each in content["notices"]] == ["b"]


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    (tmp_path / "state.db").write_bytes(new_database())
    database = Database(tmp_path / "state.db")
    yield Settings(database)
    database.close()


def opened(directory: Path, settings: Settings, report: kinds.Report = kinds.ignore) -> Notices:
    return Notices(directory, "London", settings, report, SystemClock(), pace=Pace(gather_seconds=0.05))


def test_notices_are_there_again_after_a_restart(tmp_path: Path, settings: Settings, hook: WebHook) -> None:
    first = opened(tmp_path, settings)
    made = first.create("operators", "warning", f"json://127.0.0.1:{hook.port}/{SECRET}")
    first.stop(5)
    second = opened(tmp_path, settings)
    (found,) = second.all()
    assert (found.name, found.severity, found.url, found.created_at) == (
        made.name,
        made.severity,
        made.url,
        made.created_at,
    )
    second.tell(Told(0.0, 583, Severity.ERROR, "after the restart", ""))
    wait_until("it arrives", lambda: hook.received != [])
    second.stop(5)


def test_a_stored_url_that_is_not_taken_is_told_at_the_start_and_nothing_is_sent_to_it(
    tmp_path: Path, settings: Settings, hook: WebHook
) -> None:
    url = f"json://127.0.0.1:{hook.port}/{SECRET}?method=POST;template=/etc/shadow"
    record = {"name": "operators", "severity": "warning", "url": url, "created_at": 1}
    (tmp_path / "notices").write_text(json.dumps({"version": 1, "notices": [record]}))
    told: list[str] = []
    notices = opened(tmp_path, settings, lambda _kind, message: told.append(message))
    wait_until("it is told", lambda: told != [])
    assert told[0].startswith("Notice operators cannot be sent: the URL has the parameter 'template'")
    assert "'template'" in notices.get("operators").deliveries.error
    with pytest.raises(NoticeNotSent, match="'template'"):
        notices.test("operators")
    notices.stop(5)
    assert hook.received == []


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"version": 2, "notices": []}',
        '{"version": 1}',
        f'{{"version": 1, "notices": [{{"name": "a", "severity": "{SECRET}", "url": "u", "created_at": 1}}]}}',
        f'{{"version": 1, "notices": [{{"{SECRET}": 1}}]}}',
    ],
)
def test_a_damaged_file_is_refused_without_being_repeated(tmp_path: Path, settings: Settings, content: str) -> None:
    (tmp_path / "notices").write_text(content)
    with pytest.raises(StateDirectoryError, match="is damaged: not a file of notices") as refusal:
        opened(tmp_path, settings)
    assert SECRET not in str(refusal.value)
    assert (tmp_path / "notices").read_text() == content


def test_a_file_that_cannot_be_read_or_written_is_told(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "notices").mkdir()
    with pytest.raises(StateDirectoryError, match="cannot be read: Is a directory"):
        opened(tmp_path, settings)
    (tmp_path / "notices").rmdir()
    notices = opened(tmp_path, settings)
    (tmp_path / "notices").mkdir()
    with pytest.raises(StateDirectoryError, match="cannot be written: Is a directory; nothing was changed"):
        notices.create("operators", "warning", "json://127.0.0.1:1")
    assert notices.all() == []


def test_a_database_that_fails_does_not_keep_notices_from_being_sent(
    tmp_path: Path, settings: Settings, hook: WebHook, capsys: pytest.CaptureFixture[str]
) -> None:
    """That it fails is what they have to tell."""
    notices = opened(tmp_path, settings)
    notices.create("operators", "warning", f"json://127.0.0.1:{hook.port}")
    with settings._database.transaction() as connection:
        connection.exec_driver_sql("DROP TABLE settings")
    notices.tell(Told(0.0, 569, Severity.CRITICAL, "The disk failed.", ""))
    wait_until("it arrives", lambda: hook.received != [])
    notices.stop(5)
    assert "cannot read a setting; its default is used" in capsys.readouterr().out
