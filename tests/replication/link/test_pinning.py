"""Pins are compared; no chains are built, and dates do not count. Over real TLS."""

from __future__ import annotations

import socket
import ssl
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from offsite.access.certificates import Authority
from offsite.clock import SystemClock
from offsite.errors import BadParameter, PeerUnreachable, PoolFailed, ProtocolError
from offsite.replication.inbound.peer_api import PeerApi
from offsite.replication.link.dialer import Dialer
from offsite.replication.link.identity import SystemIdentity
from offsite.replication.link.pinning import check_pinnable, client_context, server_name_of
from offsite.replication.peers.modification import PeerChange
from offsite.replication.peers.pairing import Login, ping
from offsite.replication.wire.errors import NotPaired
from offsite.replication.wire.messages import Done, Pair, Ping
from tests.replication.sites import PASSWORD, Site, Unintroduced, pair, random_bytes

MIB = 1 << 20
YEAR = timedelta(days=365)


@dataclass
class Shown:
    """A certificate of anyone's making, with its key."""

    certificate_path: Path
    key_path: Path
    certificate_der: bytes
    key: ec.EllipticCurvePrivateKey


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def make(
    directory: Path,
    subject: x509.Name,
    *extensions: x509.ExtensionType,
    key: ec.EllipticCurvePrivateKey | None = None,
    signed_by: Shown | None = None,
    valid_from: datetime | None = None,
) -> Shown:
    key = key or ec.generate_private_key(ec.SECP256R1())
    begins = valid_from or datetime.now(UTC) - timedelta(days=1)
    issuer = x509.load_der_x509_certificate(signed_by.certificate_der).subject if signed_by else subject
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + YEAR)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    certificate = builder.sign(signed_by.key if signed_by else key, hashes.SHA256())
    directory.mkdir()
    paths = directory / "shown.pem", directory / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return Shown(*paths, certificate.public_bytes(Encoding.DER), key)


class Caller:
    """Someone who speaks the protocol with a certificate of their making."""

    def __init__(self, shown: Shown, system_name: str) -> None:
        self.shown = shown
        self.identity = SystemIdentity(str(uuid.uuid4()), system_name)
        self.dialer = Dialer(shown, Unintroduced(self.identity), SystemClock())

    def pair(self, with_site: Site) -> None:
        message = Pair(username="manage", password=PASSWORD, certificate=self.shown.certificate_der, host="", port=7443)
        with self.dialer.dial(with_site.address) as connection:
            connection.channel.ask(connection.asking, message, Done)

    def ping(self, site: Site) -> None:
        with self.dialer.dial(site.address, site.authority.certificate_der) as connection:
            connection.channel.ask(connection.asking, Ping(), Done)


def issuer_of(site: Site) -> tuple[x509.Name, bytes]:
    certificate = x509.load_der_x509_certificate(site.authority.certificate_der)
    identifier = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert identifier is not None
    return certificate.issuer, identifier


class AtAnotherTime:
    def __init__(self, years: int) -> None:
        self._ahead_seconds = years * YEAR.total_seconds()

    def now(self) -> float:
        return SystemClock().now() + self._ahead_seconds

    def monotonic(self) -> float:
        return SystemClock().monotonic()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "other", "Other").start()
    yield site
    site.stop()


@pytest.mark.parametrize("years", [-60, 30], ids=["expired", "not yet valid"])
def test_dates_do_not_count(tmp_path: Path, newark: Site, years: int) -> None:
    """A system was set up, or works, with a clock that is years off. Fifty are in a certificate of ours."""
    london = Site(tmp_path / "london", "London")
    london.authority = Authority(tmp_path / "keys-of-then", "London", ["127.0.0.1"], AtAnotherTime(years))
    london.open()
    london.start()
    try:
        pair(london, newark)
        volume = london.create_volume("Sales", MIB)
        london.write(volume, 0, random_bytes(4096))
        london.create_set("SalesDR", volume, "Newark")
        assert london.run_to_end("SalesDR").state == "success"
        assert newark.replication.peers.online("London"), "and the other way round"
        newark.replication.peers.reachability.forget()
        assert newark.replication.peers.online("London")
    finally:
        london.stop()


@pytest.mark.parametrize("kind", ["leaf", "authority"])
def test_a_certificate_like_anothers_issuer_locks_nobody_out(
    tmp_path: Path, london: Site, newark: Site, kind: str
) -> None:
    """It has the subject and the key identifier of London's authority: OpenSSL would take it for the issuer."""
    pair(london, newark)
    subject, identifier = issuer_of(london)
    extensions: list[x509.ExtensionType] = [x509.SubjectKeyIdentifier(identifier)]
    if kind == "authority":
        extensions.append(x509.BasicConstraints(ca=True, path_length=None))
    mallory = Caller(make(tmp_path / "mallory", subject, *extensions), "Mallory")
    if kind == "leaf":
        mallory.pair(newark)
        mallory.ping(newark)
    else:
        with newark.database.transaction() as connection:  # pinned by an older version, which did not look
            connection.exec_driver_sql(
                "INSERT INTO peers (name, system_uuid, system_name, address, certificate, created_at)"
                " VALUES ('Mallory', ?, 'Mallory', '127.0.0.1:1', ?, 0)",
                (mallory.identity.uuid, mallory.shown.certificate_der),
            )
    london.replication.peers.reachability.forget()
    assert london.replication.peers.online("Newark")


def test_what_may_sign_others_is_not_pinned(tmp_path: Path, london: Site, newark: Site) -> None:
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    for number, extension in enumerate((x509.BasicConstraints(ca=True, path_length=0), usage)):
        shown = make(tmp_path / f"authority-{number}", name("Mallory"), extension)
        with pytest.raises(BadParameter, match="is the certificate of an authority"):
            Caller(shown, "Mallory").pair(newark)
    assert newark.replication.peers.all() == []

    newark.replication.stop()
    newark.authority = shown  # type: ignore[assignment]  # as much of one as a peer port needs
    newark.open()
    newark.start()
    with pytest.raises(BadParameter, match=f"the system at {newark.address}.* is the certificate of an authority"):
        pair(london, newark)
    assert newark.events == [], "no password was sent"
    assert london.replication.peers.all() == []


def test_what_may_sign_others_does_not_replace_a_pinned_one(tmp_path: Path, london: Site, newark: Site) -> None:
    pair(london, newark)
    pinned, asked = london.replication.peers.record("Newark").certificate, list(newark.asked)
    newark.replication.stop()
    shown = make(tmp_path / "authority", name("Newark"), x509.BasicConstraints(ca=True, path_length=0))
    newark.authority = shown  # type: ignore[assignment]  # as much of one as a peer port needs
    newark.open()
    newark.start()
    with pytest.raises(BadParameter, match="is the certificate of an authority"):
        london.replication.peers.change("Newark", PeerChange(login=Login("manage", PASSWORD)))
    assert newark.asked == asked, "no password was sent"
    assert london.replication.peers.record("Newark").certificate == pinned


def of_version_1(certificate_der: bytes) -> bytes:
    """Without the field that says version 3, and without a good signature, which a pin does not need."""
    version = bytes.fromhex("a003020102")
    at = certificate_der.index(version)
    heads = [certificate_der[:4], certificate_der[4:at]]  # of the certificate, and of what is signed
    shorter = [head[:2] + (int.from_bytes(head[2:]) - len(version)).to_bytes(2) for head in heads]
    return b"".join(shorter) + certificate_der[at + len(version) :]


def test_one_of_version_1_which_cannot_say_that_it_signs_nothing_is_not_pinned(tmp_path: Path) -> None:
    shown = make(tmp_path / "old", name("x" * 64))
    check_pinnable(shown.certificate_der, "system Mallory")
    with pytest.raises(BadParameter, match="is the certificate of an authority"):
        check_pinnable(of_version_1(shown.certificate_der), "system Mallory")


def test_no_session_is_resumed(london: Site, newark: Site) -> None:
    """Who was pinned once may be so no more: each connection shows its certificate."""
    pair(london, newark)
    with london.replication.peers.connect(london.replication.peers.record("Newark")) as connection:
        session = connection.channel._socket.session
        assert session is None or not session.has_ticket


@pytest.mark.parametrize("junk", [b"junk", b"\x30\x82", b""])
def test_what_is_no_certificate_is_not_pinned(junk: bytes) -> None:
    with pytest.raises(ProtocolError, match="invalid certificate of system Mallory"):
        check_pinnable(junk, "system Mallory")


def test_what_a_pinned_certificate_signed_is_a_strangers(tmp_path: Path, newark: Site) -> None:
    """The pinned one says nothing of what it may sign, which OpenSSL takes kindly."""
    pinned = make(tmp_path / "pinned", name("Mallory"))
    Caller(pinned, "Mallory").pair(newark)
    signed = Caller(make(tmp_path / "signed", name("Mallory"), signed_by=pinned), "Mallory")
    for known_as in (signed.shown, pinned):
        signed.dialer._known_as = server_name_of(known_as.certificate_der)
        with pytest.raises(NotPaired):
            signed.ping(newark)


def test_two_peers_with_one_subject_and_one_key_are_two(tmp_path: Path, newark: Site) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    callers = [Caller(make(tmp_path / each, name("Twin"), key=key), each) for each in ("Castor", "Pollux")]
    for caller in callers:
        caller.pair(newark)
    for caller in callers:
        caller.ping(newark)
    newark.replication.peers.delete("Castor", local_only=True)
    with pytest.raises(NotPaired):
        callers[0].ping(newark)
    callers[1].ping(newark)


def test_to_say_that_one_shows_anothers_certificate_is_of_no_use(tmp_path: Path, london: Site, newark: Site) -> None:
    pair(london, newark)
    mallory = Caller(make(tmp_path / "mallory", name("Mallory")), "Mallory")
    mallory.pair(newark)
    mallory.dialer._known_as = server_name_of(london.authority.certificate_der)
    with pytest.raises(NotPaired):
        mallory.ping(newark)


def test_a_pinned_certificate_without_its_name_gets_nowhere(london: Site, newark: Site) -> None:
    """No handshake is ever tried against all pins together."""
    pair(london, newark)
    context = client_context()
    context.load_cert_chain(london.authority.certificate_path, london.authority.key_path)
    for server_name in (None, "localhost", server_name_of(newark.authority.certificate_der)):
        raw = socket.create_connection(("127.0.0.1", newark.port), timeout=20)
        sock = context.wrap_socket(raw, server_hostname=server_name)
        with sock, pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
            sock.recv(1)


def test_records_that_cannot_be_read_end_that_handshake_alone(
    london: Site, newark: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair(london, newark)

    def fail(_requests: PeerApi) -> list[bytes]:
        raise PoolFailed("its state database failed")

    peer = london.replication.peers.record("Newark")
    with monkeypatch.context() as broken:
        broken.setattr(PeerApi, "pinned_certificates", fail)
        newark.restart()
        with pytest.raises(PeerUnreachable):
            ping(london.replication.peers.connect(peer))
    newark.restart()
    ping(london.replication.peers.connect(peer))
