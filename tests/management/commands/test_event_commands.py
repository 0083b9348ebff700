"""`show events` with ME4's filters, and settings as commands."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from sqlalchemy import update

from offsite import events as kinds
from offsite.errors import BadParameter, NotAllowed
from offsite.management.events.event_log import EVENTS_MAX
from offsite.management.events.tables import events as table
from offsite.store.settings import ALL, RUNS_AT_A_TIME
from tests.management.management_bench import MONITOR, Bench

ALL_KINDS = (
    kinds.VOLUME_CREATED,
    kinds.POOL_THRESHOLD_CROSSED,
    kinds.RUN_FAILED,
    kinds.POOL_FULL,
    kinds.POOL_THRESHOLD_CLEARED,
)


def tell(bench: Bench, *messages: str) -> None:
    for message in messages:
        bench.system.events.report(kinds.VOLUME_CREATED, message)
    assert bench.system.events.flush(5)


def set_time(bench: Bench, message: str, at: float) -> None:
    with bench.system.database.transaction() as connection:
        connection.execute(update(table).where(table.c.message == message).values(at=at))


def messages(bench: Bench, line: str) -> list[object]:
    return [row["message"] for row in bench.do(line, MONITOR).rows]


def test_an_event_has_the_properties_of_me4(bench: Bench) -> None:
    bench.system.events.report(kinds.POOL_FULL, "Pool A is full.")
    (row,) = bench.do("show events last 1", MONITOR).rows
    assert str(row["event-id"]).startswith("A")
    assert str(row["event-id"])[1:].isdigit()
    assert (row["event-code"], row["severity"], row["severity-numeric"]) == (570, "CRITICAL", 3)
    assert (row["serial-number"], row["controller"], row["controller-numeric"]) == (bench.system.uuid, "A", 1)
    assert str(row["model"]).startswith("Offsite ")


def test_error_leaves_out_what_is_no_warning_and_no_error(bench: Bench) -> None:
    for kind in ALL_KINDS:
        bench.system.events.report(kind, kind.severity.name)
    assert messages(bench, "show events error last 10") == ["CRITICAL", "ERROR", "WARNING"]


@pytest.mark.parametrize("filter", ["a", "b", "both", "A", "a b both"])
def test_the_filters_for_controllers_are_taken_and_show_all(bench: Bench, filter: str) -> None:
    tell(bench, "one", "two")
    assert messages(bench, f"show events {filter} last 2") == ["two", "one"]


def test_events_are_chosen_by_time_with_both_ends(bench: Bench) -> None:
    begin = datetime(2026, 3, 1, 10, 0, 0).timestamp()
    for second in range(5):
        tell(bench, f"at {second}")
        set_time(bench, f"at {second}", begin + second + 0.7)
    line = 'show events from "2026-03-01 10:00:01" to 030126100003'
    assert messages(bench, line) == ["at 3", "at 2", "at 1"]
    assert messages(bench, "show events to 2026-03-01T10:00:00") == ["at 0"]
    assert "at 4" in messages(bench, "show events from 030126100004")


def test_events_are_chosen_by_id_in_both_spellings_with_both_ends(bench: Bench) -> None:
    tell(bench, "a", "b", "c", "d")
    ids = {row["message"]: str(row["event-id"]) for row in bench.rows("show events last 4")}
    for first, last in ((ids["b"], ids["c"]), (ids["b"][1:], ids["c"].lower())):
        assert messages(bench, f"show events from-event {first} to-event {last}") == ["c", "b"]
    assert messages(bench, f"show events from-event {ids['b']} last 1") == ["d"]


def test_a_range_is_shown_as_a_whole_and_without_one_fifty(bench: Bench) -> None:
    tell(bench, *map(str, range(120)))
    (first,) = [row["event-id"] for row in bench.rows("show events last 500") if row["message"] == "0"]
    assert len(messages(bench, "show events")) == 50
    assert len(messages(bench, f"show events from-event {first}")) == 120
    assert len(messages(bench, f"show events from-event {first} last 7")) == 7


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("show events last 0", f"1 to {EVENTS_MAX}"),
        (f"show events last {EVENTS_MAX + 1}", f"1 to {EVENTS_MAX}"),
        ("show events from 1322100000", "13 as the month"),
        ("show events to yesterday", "is not of the form MMDDhhmmss"),
        ("show events from-event C1", "event ID 'C1'"),
        ("show events to-event A", "event ID 'A'"),
        (f"show events to-event {'9' * 19}", "event ID"),
        ("show events from-event A9 to-event A8", "from-event is after to-event"),
        ("show events from 030126100001 to 030126100000", "from is after to"),
    ],
)
def test_what_selects_nothing_that_can_be_is_refused(bench: Bench, line: str, rule: str) -> None:
    bench.refused(line, BadParameter, rule, user=MONITOR)


def test_detail_adds_the_recommended_action_to_the_table(bench: Bench) -> None:
    def headings(line: str) -> list[str]:
        (row,) = bench.rows(line)
        return [each.heading for each in row.type.properties if each.heading]

    assert headings("show events last 1 detail") == [*headings("show events last 1"), "Recommended action"]


def test_all_events_that_are_kept_are_searched_quickly(bench: Bench) -> None:
    """No index is needed for ten thousand rows."""
    with bench.system.database.transaction() as connection:
        values = {"at": 1.0, "code": 610, "severity": 0, "message": "x" * 200, "recommended_action": ""}
        connection.execute(table.insert(), [values] * EVENTS_MAX)
    begun = time.perf_counter()
    assert len(messages(bench, "show events error from 1970-01-01T12:00:00")) == 0
    assert time.perf_counter() - begun < 1


def test_settings_are_shown_and_changed_and_an_event_says_so(bench: Bench) -> None:
    assert bench.names("show settings") == [each.name for each in ALL]
    (row,) = bench.do("show settings runs-at-a-time", MONITOR).rows
    assert (row["value"], row["default"], row["limits"]) == ("2", "2", "1 to 64")
    (row,) = bench.do("set setting value 7 name runs-at-a-time").rows
    assert row["value"] == "7"
    assert bench.system.settings.get(RUNS_AT_A_TIME) == 7
    assert messages(bench, "show events last 1") == ["Setting runs-at-a-time was changed from 2 to 7."]
    bench.do("set setting name runs-at-a-time value 7")
    assert messages(bench, "show events last 2")[0] != messages(bench, "show events last 2")[1]
    limits = {row["limit"]: row["value"] for row in bench.rows("show limits")}
    assert limits["setting runs-at-a-time"] == "1 to 64"
    assert limits["notices"] == "16"


def test_a_setting_may_be_emptied_again(bench: Bench) -> None:
    bench.do("set setting name time-zone value Europe/London")
    reply = bench.do('set setting name time-zone value ""')
    assert reply.message == "Setting time-zone is now empty."
    assert reply.rows[0]["value"] == ""


def test_times_are_those_of_the_setting_time_zone(bench: Bench) -> None:
    """Whatever the zone of the machine is: noon in Kiritimati is 22:00 UTC of the day before."""
    tell(bench, "noon")
    set_time(bench, "noon", datetime(2026, 2, 28, 22, 0, 0, tzinfo=UTC).timestamp())
    bench.do("set setting name time-zone value Pacific/Kiritimati")
    assert messages(bench, "show events from 030126120000 to 030126120000") == ["noon"]
    bench.do("set setting name time-zone value UTC")
    assert messages(bench, "show events from 022826220000 to 022826220000") == ["noon"]


def test_settings_that_are_wrong_are_refused(bench: Bench) -> None:
    bench.refused("set setting name runs-at-a-time value 65", BadParameter, "'65'", "1 to 64")
    bench.refused("set setting name retry-cadence value never", BadParameter, "'never'", "offsite, me4")
    bench.refused("set setting name time-zone value Mars/Olympus", BadParameter, "'Mars/Olympus'", "Europe/London")
    bench.refused("set setting name runs-at-a-time value " + "9" * 5000, BadParameter, "1 to 64")
    bench.refused("set setting name runs value 1", BadParameter, "'runs'", "runs-at-a-time")
    bench.refused("show settings nothing", BadParameter, "'nothing'")
    bench.refused("set setting name runs-at-a-time value 3", NotAllowed, "role manage", user=MONITOR)


def test_every_setting_takes_its_own_default_and_explains_itself() -> None:
    assert len({each.name for each in ALL}) == len(ALL)
    for each in ALL:
        each.parse(each.default)
        assert each.help.endswith("."), each.name
