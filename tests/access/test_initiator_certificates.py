"""What was revoked is good no more, whatever comes; what was not stays good, also of versions that kept no record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from structlog.testing import capture_logs

from offsite.access import initiator_certificates as module
from offsite.access.certificates import Authority
from offsite.access.initiator_certificates import CertificateRevoked, InitiatorCertificate, InitiatorCertificates
from offsite.errors import BadParameter, InUse, ObjectNotFound, StateDirectoryError
from offsite.store.database import Database
from tests.management.management_bench import new_database


class Place:
    def __init__(self, directory: Path) -> None:
        (directory / "state.db").write_bytes(new_database())
        self.database = Database(directory / "state.db")
        self.authority = Authority(directory / "keys", "London", [])
        self.record = InitiatorCertificates(self.database)

    def issue(self, name: str, at: float = 5.0) -> tuple[str, bytes]:
        """Serial and DER of one that is on record."""
        pem, _ = self.authority.issue(name)
        return self.record.add(pem, at).serial, der(pem)

    def is_good(self, certificate: bytes) -> bool:
        try:
            self.record.check(certificate)
        except CertificateRevoked:
            return False
        return True


def der(pem: str) -> bytes:
    return x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.database.close()


def test_one_of_two_certificates_of_an_initiator_is_revoked_and_stays_so_after_a_restart(place: Place) -> None:
    serial, first = place.issue("web1")
    _, second = place.issue("web1")
    assert place.is_good(first) and place.is_good(second)
    assert place.record.revoke(serial, 9.0).revoked_at == 9.0
    place.record = InitiatorCertificates(place.database)
    assert not place.is_good(first)
    assert place.is_good(second)
    with pytest.raises(BadParameter, match="is already revoked"):
        place.record.revoke(serial, 10.0)
    with pytest.raises(ObjectNotFound, match="'00ff' does not exist"):
        place.record.revoke("00ff", 10.0)


def test_one_of_an_older_version_is_good_and_on_record_once_it_was_seen(place: Place) -> None:
    pem, _ = place.authority.issue("old", 3650)
    assert place.record.all() == []
    assert place.is_good(der(pem))
    (found,) = place.record.all("old")
    assert found.issued_at is None and found.revoked_at is None
    assert place.is_good(der(pem))
    place.record.revoke(found.serial, 9.0)
    assert not place.is_good(der(pem))


def test_all_of_an_initiator_are_revoked_also_those_not_on_record_and_a_new_one_is_good(place: Place) -> None:
    unseen = der(place.authority.issue("web1")[0])
    _, known = place.issue("web1")
    _, other = place.issue("web2")
    assert place.record.revoke_all("web1", 9.0) == 1
    assert not place.is_good(known)
    assert not place.is_good(unseen)
    assert [each.name for each in place.record.all()] == ["web1", "web2"], "what is refused is not put on record"
    assert place.is_good(other)
    _, new = place.issue("web1")
    assert place.is_good(new)
    assert not place.is_good(unseen), "the new one makes nothing older good"
    assert place.record.revoke_all("web1", 10.0) == 1
    assert not place.is_good(new)


def test_the_record_is_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CERTIFICATES_MAX", 1)
    place.issue("web1")
    with pytest.raises(InUse, match="1 certificates of initiators are kept"):
        place.issue("web2")


def test_a_full_record_lets_go_of_what_it_can_do_without(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was revoked is refused all the same, also with a clock that was put back."""
    _, ended = place.issue("ended")
    serial, revoked_alone = place.issue("alone")
    _, revoked_together = place.issue("together")
    place.record.revoke(serial, 6.0)
    place.record.revoke_all("together", 6.0)
    end = place.record.all("ended")[0].ends_at
    monkeypatch.setattr(module, "CERTIFICATES_MAX", 3)
    assert place.issue("new")
    assert [each.name for each in place.record.all()] == ["alone", "ended", "new"]
    with pytest.raises(InUse, match="revoke all certificates of an initiator"):
        place.issue("late", end + module.ENDED_LONG_SECONDS)
    place.issue("late", end + module.ENDED_LONG_SECONDS + 60)
    assert [each.name for each in place.record.all()] == ["alone", "late"]
    monkeypatch.undo()
    assert not place.is_good(revoked_alone) and not place.is_good(revoked_together)
    assert place.is_good(ended), "who was never revoked gets in, if TLS lets them"


def test_a_database_that_cannot_be_written_keeps_no_host_out(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise StateDirectoryError("state.db cannot be used: disk is full")

    monkeypatch.setattr(place.database, "transaction", full)
    with capture_logs() as lines:
        assert place.is_good(der(place.authority.issue("old")[0]))
    assert [line["event"] for line in lines] == ["cannot record a certificate"]


@pytest.mark.parametrize("how", ["all of its initiator", "by its serial"])
def test_a_revocation_while_a_certificate_is_being_put_on_record_is_not_lost(
    place: Place, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    unseen = der(place.authority.issue("old")[0])
    note = InitiatorCertificates._note

    def revoked_before(record: InitiatorCertificates, found: InitiatorCertificate) -> None:
        if how == "by its serial":
            note(record, found)  # for another connection of the same host
            record.revoke(found.serial, 9.0)
        else:
            record.revoke_all("old", 9.0)
        note(record, found)

    monkeypatch.setattr(InitiatorCertificates, "_note", revoked_before)
    assert not place.is_good(unseen)
    monkeypatch.undo()
    assert not place.is_good(unseen)
