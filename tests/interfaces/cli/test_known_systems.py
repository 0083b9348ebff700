"""Trust in remote systems: a certificate that somebody has compared is written down, another one later is refused."""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from offsite.errors import BadParameter, CertificateChanged
from offsite.interfaces.cli.known_systems import TrustFile, TrustKnown, UnknownCertificate, default_path
from tests.dated_certificates import dated_certificate

OURS, OTHER = b"certificate", b"another certificate"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config" / "offsite" / "known_systems"


def known(path: Path, place: str = "london:8443", certificate: bytes = OURS) -> None:
    TrustKnown(path, fingerprint(certificate)).check(place, certificate)


def fingerprint(certificate: bytes) -> str:
    return hashlib.sha256(certificate).hexdigest()


def test_an_unknown_certificate_is_refused_where_nobody_can_be_asked(path: Path) -> None:
    """Whoever answers at that address would get the password."""
    with pytest.raises(UnknownCertificate, match=rf"not trusted yet: SHA-256 {fingerprint(OURS)}.*Nothing was sent"):
        TrustKnown(path).check("london:8443", OURS)
    assert not path.exists()


@pytest.mark.parametrize("answer", [True, False])
def test_somebody_at_a_terminal_is_shown_the_fingerprint_and_asked_once(path: Path, answer: bool) -> None:
    questions: list[str] = []

    def asks(question: str) -> bool:
        questions.append(question)
        return answer

    if answer:
        TrustKnown(path, asks=asks).check("london:8443", OURS)
        TrustKnown(path, asks=asks).check("london:8443", OURS)
        assert path.read_text() == f"london:8443 {fingerprint(OURS)}\n"
    else:
        with pytest.raises(UnknownCertificate, match="was not trusted; nothing was sent"):
            TrustKnown(path, asks=asks).check("london:8443", OURS)
        assert not path.exists()
    assert len(questions) == 1
    assert fingerprint(OURS) in questions[0] and "london:8443" in questions[0]


def test_a_fingerprint_that_is_given_decides(path: Path) -> None:
    with pytest.raises(CertificateChanged, match="nothing was sent"):
        TrustKnown(path, fingerprint(OTHER)).check("london:8443", OURS)
    assert not path.exists()
    spaced = ":".join(re.findall("..", fingerprint(OURS).upper()))
    TrustKnown(path, spaced).check("london:8443", OURS)
    TrustKnown(path).check("london:8443", OURS)
    TrustKnown(path, fingerprint(OTHER)).check("london:8443", OTHER)
    assert path.read_text() == f"london:8443 {fingerprint(OTHER)}\n", "a change that the user knows of"


@pytest.mark.parametrize("text", ["", "abc", "g" * 64, "0" * 65])
def test_what_is_no_fingerprint_is_refused(path: Path, text: str) -> None:
    with pytest.raises(BadParameter, match="is not a SHA-256"):
        TrustKnown(path, text)


def test_another_certificate_later_is_refused_and_the_first_stays(path: Path) -> None:
    known(path)
    before = path.read_text()
    with pytest.raises(CertificateChanged) as refusal:
        TrustKnown(path, asks=lambda _: True).check("london:8443", OTHER)
    for part in (fingerprint(OURS), fingerprint(OTHER), str(path), "Nothing was sent"):
        assert part in str(refusal.value)
    assert path.read_text() == before


def test_each_port_of_each_host_has_a_certificate_of_its_own(path: Path) -> None:
    for place, certificate in (("london:8443", OURS), ("london:9443", OTHER), ("newark:8443", OTHER)):
        known(path, place, certificate)
    assert len(path.read_text().splitlines()) == 3


def test_a_damaged_file_is_refused_rather_than_believed(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("london:8443 not-a-digest\n")
    with pytest.raises(BadParameter, match="line 1 of"):
        TrustKnown(path).check("london:8443", OURS)


def test_a_file_that_is_no_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadParameter, match="PEM"):
        TrustFile(tmp_path / "absent.pem")
    (tmp_path / "text.pem").write_text("hello")
    with pytest.raises(BadParameter, match="PEM"):
        TrustFile(tmp_path / "text.pem")


def test_the_file_lies_where_the_user_keeps_configuration() -> None:
    assert default_path({"XDG_CONFIG_HOME": "/x"}) == Path("/x/offsite/known_systems")
    assert default_path({}) == Path.home() / ".config" / "offsite" / "known_systems"


@pytest.mark.parametrize(("from_days", "to_days", "what"), [(-20, -10, "has expired"), (10, 20, "not yet valid")])
def test_a_certificate_whose_dates_do_not_fit_is_told_with_the_clock(
    tmp_path: Path, from_days: int, to_days: int, what: str
) -> None:
    path = dated_certificate(tmp_path, timedelta(days=from_days), timedelta(days=to_days))
    trust = TrustFile(path)
    with pytest.raises(ssl.SSLCertVerificationError) as caught:
        shake_hands(path, trust.context())
    sentence = str(trust.refusal("london:8443", caught.value))
    assert what in sentence
    assert re.search(r"by the clock of this machine, which shows \d{4}-\d\d-\d\d .* UTC; check that clock", sentence)


def shake_hands(server_path: Path, client: ssl.SSLContext) -> None:
    """With a server that shows the certificate in this file."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(server_path)
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True)
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(ours, server_hostname="localhost")
    finally:
        ours.close()
        thread.join()
