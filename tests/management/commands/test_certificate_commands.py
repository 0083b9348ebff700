"""Certificates of initiators as commands, and that their end is told in time."""

from __future__ import annotations

import pytest
from cryptography import x509

from offsite.access.initiator_certificates import ENDED_LONG_SECONDS
from offsite.errors import BadParameter, InitiatorNotFound, ObjectNotFound
from offsite.events import CERTIFICATE_ENDS, EventKind
from offsite.management.certificate_watch import (
    DAY_SECONDS,
    LOOK_SECONDS,
    CertificateWatch,
    Ending,
    certificates_in_use,
)
from offsite.management.command_table.reply import Question
from tests.management.management_bench import MONITOR, Bench


def test_a_certificate_is_good_for_a_year_or_as_long_as_is_asked_for(bench: Bench) -> None:
    for line, days in (("create initiator-certificate web1", 365), ("create initiator-certificate days 30 web1", 30)):
        (row,) = bench.rows(line)
        certificate = x509.load_pem_x509_certificate(str(row["certificate"]).encode())
        lasts = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        assert lasts.days == days + 1, "it begins a day before, for hosts whose clock is behind"
    for days in (0, 3651):
        bench.refused(f"create initiator-certificate days {days} web1", BadParameter, "1 to 3650")


def test_certificates_are_listed_and_revoked_by_serial_or_initiator(bench: Bench) -> None:
    for name in ("web1", "web1", "web2"):
        bench.do(f"create initiator-certificate {name}")
    bench.do("set initiator id tls:web1 nickname shop")
    first, second = bench.do("show initiator-certificates initiator shop", MONITOR).rows
    assert [first["status"], second["status"]] == ["valid", "valid"]
    bench.do(f"revoke initiator-certificate serial {str(first['serial']).upper()}")
    assert bench.target.rechecks == 1, "who is connected with it is cut"
    by_serial = {row["serial"]: row["status"] for row in bench.rows("show initiator-certificates initiator tls:web1")}
    assert by_serial == {first["serial"]: "revoked", second["serial"]: "valid"}
    reply = bench.do("revoke initiator-certificate initiator shop")
    assert reply.message == ("All certificates of initiator tls:web1 were revoked, 1 of them on record and valid.")
    assert [row["status"] for row in bench.rows("show initiator-certificates")] == ["revoked", "revoked", "valid"]
    newest = bench.rows("show events")[0]
    assert (newest["event-code"], str(newest["message"])[-13:]) == (608, "by user anna.")
    made = f"Certificate {second['serial']} for initiator tls:web1 was created, valid for 365 days, by user anna."
    assert made in [row["message"] for row in bench.rows("show events")]


def test_a_certificate_that_has_ended_is_shown_so(bench: Bench) -> None:
    bench.do("create initiator-certificate web1")
    with bench.system.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE initiator_certificates SET ends_at = 1")
    (row,) = bench.rows("show initiator-certificates")
    assert row["status"] == "expired"


def test_connections_that_a_revocation_has_not_cut_yet_are_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.do("create initiator-certificate web1")
    monkeypatch.setattr(bench.target, "recheck", lambda: 2)
    reply = bench.do("revoke initiator-certificate initiator tls:web1")
    assert reply.message.endswith(" 2 connections are still open, because the disk does not answer.")


def test_a_revocation_is_asked_about_and_needs_one_of_two(bench: Bench) -> None:
    question = bench.answer("revoke initiator-certificate initiator tls:web1", asks=True)
    assert isinstance(question, Question)
    assert "all certificates of initiator tls:web1" in question.text
    bench.refused("revoke initiator-certificate", BadParameter, "give either")
    with pytest.raises(BadParameter, match="give either"):
        bench.answer("revoke initiator-certificate", asks=True)
    bench.refused("revoke initiator-certificate serial 1f initiator tls:web1", BadParameter, "give either")
    bench.refused("revoke initiator-certificate serial 1f", ObjectNotFound, "'1f' does not exist")
    bench.refused("revoke initiator-certificate initiator nobody", InitiatorNotFound, "'nobody'")
    bench.refused("revoke initiator-certificate initiator nbd:192.0.2.7", BadParameter, "cannot have certificates")


def test_taking_a_nickname_away_says_that_the_certificates_stay_good(bench: Bench) -> None:
    bench.do("create initiator-certificate web1")
    bench.do("set initiator id tls:web1 nickname shop")
    reply = bench.do("delete initiator-nickname shop")
    assert "`revoke initiator-certificate initiator tls:web1` revokes them" in reply.message
    bench.do("revoke initiator-certificate initiator tls:web1")
    bench.do("set initiator id tls:web1 nickname shop")
    assert "revoke" not in bench.do("delete initiator-nickname shop").message


def test_the_system_shows_when_its_own_certificates_end(bench: Bench) -> None:
    (row,) = bench.do("show system", MONITOR).rows
    assert row["certificate-expiry"] == bench.system.authority.ends_at
    assert row["authority-expiry"] == bench.system.authority.authority_ends_at


class OwnedClock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds


def test_the_end_of_a_certificate_is_told_a_month_and_a_week_before_and_when_it_has_come() -> None:
    clock, told = OwnedClock(), list[tuple[float, str]]()
    soon = Ending("The certificate of web1", 100 * DAY_SECONDS, "create a new one")

    def report(kind: EventKind, message: str) -> None:
        assert kind is CERTIFICATE_ENDS
        told.append((clock.seconds / DAY_SECONDS, message))

    in_use = [soon, Ending("Another", 1e9, "wait")]
    watch = CertificateWatch(lambda: in_use, report, clock)
    for _ in range(110 * 4):
        assert watch.step() == clock.seconds + LOOK_SECONDS
        clock.seconds += LOOK_SECONDS
    assert told == [
        (70, "The certificate of web1 expires in 30 days: create a new one."),
        (93, "The certificate of web1 expires in 7 days: create a new one."),
        (100, "The certificate of web1 has expired: create a new one."),
    ]
    in_use.clear()
    watch.step()
    assert not watch._told, "those that are there no more are forgotten"


def test_of_an_initiator_only_the_certificate_that_lasts_longest_matters(bench: Bench) -> None:
    for line in ("days 5 web1", "days 90 web1", "days 3 web2"):
        bench.do(f"create initiator-certificate {line}")
    bench.do("revoke initiator-certificate initiator tls:web2")
    system, authority, web1 = certificates_in_use(bench.system)
    assert "--new-keys" in system.renewal and "--new-keys" in authority.renewal
    assert web1.ends_at == pytest.approx(bench.system.clock.now() + 90 * DAY_SECONDS, abs=3600)
    assert "create initiator-certificate web1" in web1.renewal


def test_a_restart_tells_nothing_of_a_certificate_that_ended_long_ago(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.do("create initiator-certificate days 5 web1")
    (record,) = bench.system.certificates.all()
    *_, web1 = certificates_in_use(bench.system)
    assert record.serial in web1.what
    clock = OwnedClock()
    clock.seconds = record.ends_at + ENDED_LONG_SECONDS + 60
    monkeypatch.setattr(bench.system, "clock", clock)
    assert not any(record.serial in each.what for each in certificates_in_use(bench.system))


def test_a_database_that_cannot_be_read_does_not_end_the_watch(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    with bench.system.database.transaction() as connection:
        connection.exec_driver_sql("ALTER TABLE initiator_certificates RENAME TO elsewhere")
    CertificateWatch(lambda: certificates_in_use(bench.system), bench.system.events.report, bench.system.clock).step()
    assert "cannot check the certificates" in capsys.readouterr().out
