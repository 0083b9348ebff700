"""Who a connection comes from, and whether it must be encrypted.

A Unix socket and loopback stay on this machine, so they may do without TLS. From anywhere else TLS is
required, with a client certificate of this system's authority: an address proves nothing on a network.
"""

from __future__ import annotations

import ipaddress

from cryptography import x509
from cryptography.x509.oid import NameOID

from offsite.admission import LOCAL

UNIX = LOCAL
"""In place of the address of a client of a Unix socket."""


def requires_tls(client_address: str) -> bool:
    """Whether a client at `client_address`, an IP address or UNIX, must use TLS with a certificate."""
    if client_address == UNIX:
        return False
    address = ipaddress.ip_address(client_address.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return not (mapped or address).is_loopback


def initiator_id(client_address: str, certificate_der: bytes | None) -> str:
    """`tls:NAME` of a verified client certificate, else `nbd:ADDRESS`."""
    if certificate_der is not None:
        subject = x509.load_der_x509_certificate(certificate_der).subject
        for name in subject.get_attributes_for_oid(NameOID.COMMON_NAME):
            return f"tls:{name.value!s}"
    return f"nbd:{client_address}"
