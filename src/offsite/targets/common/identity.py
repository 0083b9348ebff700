"""Who a connection comes from, and whether it must be encrypted.

Initiators have ids of several kinds, which their beginning tells: `tls:NAME` is what a certificate proves; each target
has a beginning of its own for those that come without one, as `nbd:ADDRESS`. No client can choose one of another kind.

A Unix socket and loopback stay on this machine, so they may do without TLS. From anywhere else TLS is
required, with a client certificate of this system's authority: an address proves nothing on a network.
"""

from __future__ import annotations

import ipaddress

from cryptography import x509
from cryptography.x509.oid import NameOID

from offsite.admission import LOCAL
from offsite.errors import NotAllowed
from offsite.escaping import shown

UNIX = LOCAL
"""In place of the address of a client of a Unix socket."""

CERTIFICATE_PREFIX = "tls:"


def requires_tls(client_address: str) -> bool:
    """Whether a client at `client_address`, an IP address or UNIX, must use TLS with a certificate."""
    if client_address == UNIX:
        return False
    address = ipaddress.ip_address(client_address.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return not (mapped or address).is_loopback


def of_certificate(certificate_der: bytes | None) -> str | None:
    """`tls:NAME` of a verified client certificate; None without one, or without a name in it."""
    if certificate_der is None:
        return None
    subject = x509.load_der_x509_certificate(certificate_der).subject
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return f"{CERTIFICATE_PREFIX}{names[0].value!s}" if names else None


def is_proven(initiator: str) -> bool:
    """Whether a certificate says so, and not the client or its address alone."""
    return initiator.startswith(CERTIFICATE_PREFIX)


def checked_claim(initiator: str, prefix: str) -> str:
    """The id that a client gives itself, which has to be of its target's own kind. Raises NotAllowed."""
    if not initiator.startswith(prefix) or initiator == prefix:
        raise NotAllowed(f"initiator {shown(initiator)} does not begin with {prefix}")
    return initiator
