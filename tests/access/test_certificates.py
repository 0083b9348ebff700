"""The authority's files survive, are private, are refused when damaged, and its certificates are accepted."""

from __future__ import annotations

import hashlib
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from offsite.access.certificates import Authority
from offsite.errors import BadParameter, StateDirectoryError


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "keys", "London", ["192.0.2.7", "london.example"])


def _contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def test_the_second_start_keeps_every_file(tmp_path: Path, authority: Authority) -> None:
    """Peers pin the certificate and initiators trust the authority: a new start must not change either."""
    before = _contents(tmp_path / "keys")
    again = Authority(tmp_path / "keys", "Renamed", ["198.51.100.1"])
    assert _contents(tmp_path / "keys") == before
    assert again.fingerprint == authority.fingerprint


def test_only_the_owner_can_read_the_files(tmp_path: Path, authority: Authority) -> None:
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()} == {0o600}
    assert authority.key_path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")


def test_the_fingerprint_is_the_digest_of_the_certificate(authority: Authority) -> None:
    der = ssl.PEM_cert_to_DER_cert(authority.certificate_path.read_text())
    assert der == authority.certificate_der
    assert authority.fingerprint == hashlib.sha256(der).hexdigest()


def test_the_certificate_names_all_addresses_and_loopback(authority: Authority) -> None:
    certificate = x509.load_pem_x509_certificate(authority.certificate_path.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(name) for name in names.get_values_for_type(x509.IPAddress)} == {
        "192.0.2.7",
        "127.0.0.1",
        "::1",
    }
    assert set(names.get_values_for_type(x509.DNSName)) == {"london.example", "localhost"}


def test_openssl_accepts_both_certificates_for_their_purposes(tmp_path: Path, authority: Authority) -> None:
    client = tmp_path / "client.pem"
    client.write_text(authority.issue("newark")[0])
    for purpose, path in (
        ("sslserver", authority.certificate_path),
        ("sslclient", authority.certificate_path),
        ("sslclient", client),
    ):
        subprocess.run(
            ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", authority.ca_path, path],
            check=True,
            capture_output=True,
        )


def test_a_client_certificate_names_its_initiator(tmp_path: Path, authority: Authority) -> None:
    certificate, key = authority.issue("db host 7")
    assert _handshake(authority, tmp_path, certificate, key) == "db host 7"


def test_a_client_of_another_authority_is_refused(tmp_path: Path, authority: Authority) -> None:
    other = Authority(tmp_path / "other", "Newark", [])
    with pytest.raises(ssl.SSLError):
        _handshake(authority, tmp_path, *other.issue("db"))


def _handshake(authority: Authority, tmp_path: Path, certificate: str, key: str) -> str:
    """The common name that the server sees when a client connects with this certificate."""
    (tmp_path / "client.pem").write_text(certificate + key)
    context = ssl.create_default_context(cafile=str(authority.ca_path))
    context.load_cert_chain(tmp_path / "client.pem")
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    theirs.settimeout(10)

    def client() -> None:
        try:
            context.wrap_socket(theirs, server_hostname="localhost").close()
        except ssl.SSLError:
            theirs.close()  # the server side sees why

    thread = threading.Thread(target=client)
    thread.start()
    try:
        with authority.server_context(require_client_certificate=True).wrap_socket(ours, server_side=True) as server:
            shown = server.getpeercert(binary_form=True)
            assert shown
            subject = x509.load_der_x509_certificate(shown).subject
            return str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
    finally:
        thread.join(10)


@pytest.mark.parametrize("name", ["", "x" * 33, 'quo"te', "new\nline"])
def test_issue_refuses_names_outside_the_rules(authority: Authority, name: str) -> None:
    with pytest.raises(BadParameter, match="initiator name"):
        authority.issue(name)


@pytest.mark.parametrize("name", ["ca.pem", "ca-key.pem", "system.pem", "system-key.pem"])
@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_file_is_refused_by_its_name_and_left(
    tmp_path: Path, authority: Authority, name: str, damage: bytes | None
) -> None:
    path = tmp_path / "keys" / name
    path.write_bytes(path.read_bytes()[:120] if damage is None else damage)
    before = _contents(tmp_path / "keys")
    with pytest.raises(StateDirectoryError, match=f"{name} is damaged"):
        Authority(tmp_path / "keys", "London", [])
    assert _contents(tmp_path / "keys") == before
    assert authority.certificate_der


@pytest.mark.parametrize("name", ["ca-key.pem", "system-key.pem"])
def test_a_missing_key_is_not_replaced_in_silence(tmp_path: Path, authority: Authority, name: str) -> None:
    """A new key under the old certificate would break every peer's pin and every initiator's trust."""
    (authority.key_path.parent / name).unlink()
    with pytest.raises(StateDirectoryError, match=f"{name} is missing"):
        Authority(tmp_path / "keys", "London", [])


@pytest.mark.parametrize("pair", [("ca.pem", "ca-key.pem"), ("system.pem", "system-key.pem")])
def test_a_key_of_another_system_is_refused(tmp_path: Path, authority: Authority, pair: tuple[str, str]) -> None:
    other = Authority(tmp_path / "other", "Newark", [])
    authority.key_path.with_name(pair[1]).write_bytes(other.key_path.with_name(pair[1]).read_bytes())
    with pytest.raises(StateDirectoryError, match=f"{pair[0]} does not belong to {pair[1]}"):
        Authority(tmp_path / "keys", "London", [])


def test_keys_of_another_kind_or_encrypted_are_refused(tmp_path: Path, authority: Authority) -> None:
    key = rsa.generate_private_key(65537, 2048)
    authority.key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(StateDirectoryError, match="holds a key of another kind"):
        Authority(tmp_path / "keys", "London", [])
    subprocess.run(
        ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", tmp_path / "plain"],
        check=True,
    )
    subprocess.run(
        [
            "openssl",
            "ec",
            "-aes128",
            "-passout",
            "pass:x",
            "-in",
            tmp_path / "plain",
            "-out",
            authority.key_path,
        ],
        check=True,
        capture_output=True,
    )
    with pytest.raises(StateDirectoryError, match="damaged"):
        Authority(tmp_path / "keys", "London", [])


@pytest.mark.parametrize("lost", ["system.pem", "system.pem system-key.pem", "ca.pem system.pem system-key.pem"])
def test_a_first_start_that_was_cut_goes_on(tmp_path: Path, authority: Authority, lost: str) -> None:
    """A crash after any of the four files leaves a directory that the next start completes."""
    for name in lost.split():
        authority.key_path.with_name(name).unlink()
    authority.key_path.with_name("system.pem.new").write_bytes(b"half a cert")
    again = Authority(tmp_path / "keys", "London", [])
    certificate, key = again.issue("db")
    assert _handshake(again, tmp_path, certificate, key) == "db"
