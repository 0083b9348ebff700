"""Pinned certificates: which may be pinned, and TLS that accepts exactly one of them.

A pin is compared, byte for byte. No authority vouches for a peer, dates do not count (a clock that is wrong must not
end replication), and a certificate that a pinned one has signed is a stranger's. OpenSSL insists on building a chain,
so each handshake gets a store of its own with nothing in it but the one certificate that is expected: in a store of
all peers, one with the subject and key identifier of another one's issuer keeps that other peer out.

The one who connects says which certificate it is going to show, in the name that TLS sends along (SNI): its
fingerprint. That name proves nothing, it only chooses the store; and it tells nothing that the certificate's owner
does not show to anyone who connects to its own peer port.

    ClientHello with SNI ──▶ pinned here? ──▶ store = that one ──▶ what is shown is it, byte for byte? ──▶ peer
                                  └─ no ────▶ store = empty ─────▶ nothing is shown? ──▶ stranger, who may pair
"""

from __future__ import annotations

import ssl
from collections.abc import Callable

import structlog
from cryptography import x509

from offsite.errors import BadParameter, OffsiteError, ProtocolError
from offsite.replication.link.identity import Certificates, fingerprint_of

# X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which Python has no name for.
_NO_CHECK_TIME = 0x200000
_NOT_ONE = (ValueError, ssl.SSLError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, x509.InvalidVersion)

_log = structlog.get_logger(__name__)


def check_pinnable(certificate_der: bytes, whose: str) -> None:
    """Raises ProtocolError for what is no certificate, BadParameter for one that may sign others."""
    try:
        certificate = x509.load_der_x509_certificate(certificate_der)
        may_sign = certificate.version is not x509.Version.v3 or _may_sign(certificate.extensions)
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=certificate_der)
    except _NOT_ONE as error:
        raise ProtocolError(f"invalid certificate of {whose}: {error}") from error
    if may_sign:
        raise BadParameter(
            f"the certificate of {whose}, with the fingerprint {fingerprint_of(certificate_der)}, is the certificate "
            "of an authority; a system's certificate is required. Nothing was changed"
        )


def _may_sign(extensions: x509.Extensions) -> bool:
    for extension in extensions:
        value = extension.value
        if isinstance(value, x509.BasicConstraints) and value.ca:
            return True
        if isinstance(value, x509.KeyUsage) and value.key_cert_sign:
            return True
    return False


def server_context(certificates: Certificates, pinned: Callable[[], list[bytes]]) -> ssl.SSLContext:
    """For the peer port. Who shows no certificate is let in as a stranger; `pinned` is asked at each handshake."""
    context = _accepting(certificates, None)

    def choose(sock: ssl.SSLSocket | ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> int | None:
        try:
            found = next((each for each in pinned() if server_name_of(each) == name), None)
            if found is not None:
                sock.context = _accepting(certificates, found)
        except (OffsiteError, OSError) as error:  # the records of peers or our own key: the next one may find them
            _log.error("peer connection refused", reason=str(error))
            return int(ssl.AlertDescription.ALERT_DESCRIPTION_INTERNAL_ERROR)
        return None

    context.sni_callback = choose
    return context


def _accepting(certificates: Certificates, pinned: bytes | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # no session is resumed: who is there is looked at each time
    context.load_cert_chain(certificates.certificate_path, certificates.key_path)
    context.verify_mode = ssl.CERT_OPTIONAL  # without one it can only pair
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the pinned certificate is its own anchor
    context.verify_flags |= _NO_CHECK_TIME
    if pinned is not None:
        context.load_verify_locations(cadata=pinned)
    return context


def client_context() -> ssl.SSLContext:
    """For connections to others. What counts is that the other side shows the pinned certificate, byte for byte, which
    is checked right after the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def server_name_of(certificate_der: bytes) -> str:
    """What TLS is told of the certificate that will be shown: its fingerprint, as a name of two labels."""
    fingerprint = fingerprint_of(certificate_der)
    return f"{fingerprint[:32]}.{fingerprint[32:]}"
