"""The system's own certificate authority, its certificate, and those it issues to initiators.

Made at the first start, kept for good: peers pin the system's certificate, and initiators hold certificates
of the authority. X.509 as in RFC 5280; the keys are of NIST P-256, which OpenSSL, GnuTLS and qemu all take.
"""

from __future__ import annotations

import hashlib
import ipaddress
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from offsite.clock import Clock, SystemClock
from offsite.errors import BadParameter, StateDirectoryError
from offsite.names import check_name
from offsite.store.private_files import write_atomically

VALID_DAYS = 50 * 365  # nobody renews a pinned certificate in time
INITIATOR_DAYS, INITIATOR_DAYS_MAX = 365, 3650
BACKDATED_DAYS = 1  # an initiator's clock may be behind ours
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Authority:
    """The certificates of one system, in its state directory.

    Raises StateDirectoryError when a file is damaged, lacks its other half or does not fit it; nothing is
    made or changed then. `addresses` are the names and IP addresses under which clients reach the system;
    those of the first start stay in the certificate, beside the names of loopback.
    """

    def __init__(
        self,
        keys_directory: Path,
        system_name: str,
        addresses: Sequence[str],
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self.ca_path = keys_directory / "ca.pem"
        self.certificate_path = keys_directory / "system.pem"
        self.key_path = keys_directory / "system-key.pem"
        ca_key_path = keys_directory / "ca-key.pem"
        _make_directory(keys_directory)

        self._ca_key = _load_or_make_key(ca_key_path, self.ca_path)
        if not self.ca_path.exists():
            write_atomically(self.ca_path, _pem(self._make_ca(system_name)))
        self._ca = _load_certificate(self.ca_path, ca_key_path, self._ca_key)

        key = _load_or_make_key(self.key_path, self.certificate_path)
        if not self.certificate_path.exists():
            certificate = self._make_system_certificate(system_name, addresses, key)
            write_atomically(self.certificate_path, _pem(certificate))
        certificate = _load_certificate(self.certificate_path, self.key_path, key)
        self.certificate_der = certificate.public_bytes(Encoding.DER)
        self.fingerprint = hashlib.sha256(self.certificate_der).hexdigest()
        self.ends_at = certificate.not_valid_after_utc.timestamp()
        self.authority_ends_at = self._ca.not_valid_after_utc.timestamp()

    def issue(self, initiator_name: str, valid_days: int = INITIATOR_DAYS) -> tuple[str, str]:
        """A client certificate for a host and its private key, both as PEM; neither is kept here.

        The certificate's common name is `initiator_name`, which makes its holder the initiator `tls:NAME`.
        """
        check_name(initiator_name, "initiator name")
        if not 1 <= valid_days <= INITIATOR_DAYS_MAX:
            raise BadParameter(
                f"a certificate cannot be valid for {valid_days} days; 1 to {INITIATOR_DAYS_MAX} are allowed"
            )
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._leaf(initiator_name, key, valid_days).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        return _pem(builder.sign(self._ca_key, hashes.SHA256())).decode(), _key_pem(key).decode()

    def server_context(self, *, require_client_certificate: bool) -> ssl.SSLContext:
        """TLS 1.2 or newer with the system's certificate.

        A client certificate that this authority did not sign ends the handshake, and so does none at all
        if one is required.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate_path, self.key_path)
        context.load_verify_locations(self.ca_path)
        context.verify_mode = ssl.CERT_REQUIRED if require_client_certificate else ssl.CERT_OPTIONAL
        return context

    def _make_ca(self, system_name: str) -> x509.Certificate:
        name = _name(f"{system_name} authority")
        builder = (
            self._builder(name, self._ca_key)
            .issuer_name(name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
        )
        return builder.sign(self._ca_key, hashes.SHA256())

    def _make_system_certificate(
        self, system_name: str, addresses: Sequence[str], key: ec.EllipticCurvePrivateKey
    ) -> x509.Certificate:
        names = [_general_name(address) for address in dict.fromkeys((*addresses, *_LOOPBACK))]
        # Towards peers it is shown by both ends of the connection, so it is a client's as well.
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = (
            self._leaf(system_name, key)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        )
        return builder.sign(self._ca_key, hashes.SHA256())

    def _leaf(
        self, common_name: str, key: ec.EllipticCurvePrivateKey, valid_days: int = VALID_DAYS
    ) -> x509.CertificateBuilder:
        issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._ca_key.public_key())
        # The key usage is not critical, for qemu refuses a critical one without key encipherment, which
        # RFC 5480 section 3 forbids for keys of elliptic curves.
        return (
            self._builder(_name(common_name), key, valid_days)
            .issuer_name(self._ca.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=False)
            .add_extension(issuer_id, critical=False)
        )

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, valid_days: int = VALID_DAYS
    ) -> x509.CertificateBuilder:
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=BACKDATED_DAYS))
            .not_valid_after(now + timedelta(days=valid_days))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _make_directory(path: Path) -> None:
    path.mkdir(mode=0o700, exist_ok=True)
    path.chmod(0o700)


def _load_or_make_key(path: Path, certificate_path: Path) -> ec.EllipticCurvePrivateKey:
    """A key is on disk before its certificate is: a stop between the two leaves a key that is used then."""
    if not path.exists():
        if certificate_path.exists():
            raise StateDirectoryError(
                f"{path} is missing, but {certificate_path.name} exists; restore the key from a copy"
            )
        write_atomically(path, _key_pem(ec.generate_private_key(ec.SECP256R1())))
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:  # TypeError: it is encrypted
        raise StateDirectoryError(f"{path} is damaged: not a private key; restore it from a copy") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise StateDirectoryError(f"{path} holds a key of another kind than P-256; restore it from a copy")
    return key


def _load_certificate(path: Path, key_path: Path, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise StateDirectoryError(f"{path} is damaged: not a certificate; restore it from a copy") from error
    if certificate.public_key() != key.public_key():
        raise StateDirectoryError(f"{path} does not belong to {key_path.name}; restore both from a copy")
    return certificate
