"""Who a system is to another one: its names, its certificate, its address."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from offsite import __version__
from offsite.errors import BadParameter
from offsite.replication.records.records import PeerRecord
from offsite.replication.wire.messages import VERSION, Hello

PEER_PORT = 7443
HOST_CHARACTERS_MAX = 255
_NOT_IN_HOSTS = "\"'<>,;/\\@[]()"


@dataclass(frozen=True)
class SystemIdentity:
    uuid: str
    name: str

    def hello(self) -> Hello:
        """What anyone may hear."""
        return Hello(version=VERSION, system_uuid=self.uuid, system_name=self.name, software=f"Offsite {__version__}")


class Introduces(Protocol):
    """What is told and heard when a connection begins: see introductions. A certificate that is given is the one that
    is pinned for the other end."""

    def hello(self, certificate: bytes | None) -> Hello: ...

    def meet(self, certificate: bytes | None, hello: Hello, waited_seconds: float) -> None:
        """`waited_seconds`: the Hello was made after that long before it came."""
        ...

    def alive(self, peer: PeerRecord) -> None:
        """It goes on saying something."""
        ...


class Certificates(Protocol):
    """The part of offsite.access.certificates.Authority that peers need."""

    certificate_path: Path
    key_path: Path
    certificate_der: bytes


def fingerprint_of(certificate_der: bytes) -> str:
    """SHA-256, in hex: what two operators compare."""
    return hashlib.sha256(certificate_der).hexdigest()


def same_fingerprint(one: str, other: str) -> bool:
    """However they were written: upper or lower case, with or without colons."""
    return one.replace(":", "").strip().lower() == other.replace(":", "").strip().lower()


def check_host(host: str) -> str:
    """Returns `host`, or raises BadParameter: what can be neither a name nor an address of a machine."""
    bad = sorted({each for each in host if each in _NOT_IN_HOSTS or each.isspace() or not each.isprintable()})
    if not 1 <= len(host) <= HOST_CHARACTERS_MAX or bad:
        raise BadParameter(
            f"host {host[:100]!r} is neither a name nor an IP address of at most {HOST_CHARACTERS_MAX} characters"
        )
    return host


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of HOST, HOST:PORT, or [IPv6]:PORT. Raises BadParameter."""
    host, port = text.strip(), str(PEER_PORT)
    if host.startswith("["):
        host, closed, rest = host[1:].partition("]")
        port = rest.removeprefix(":") or port
        if not closed or not rest.startswith(":" if rest else ""):
            host = ""
    elif host.count(":") == 1:
        host, port = host.split(":")
    try:
        check_host(host)
        if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
            raise BadParameter(f"port {port[:100]!r} is not within 1 to 65535")
    except BadParameter as error:
        raise BadParameter(
            f"address {text[:300]!r} is not HOST, HOST:PORT or [IPv6]:PORT with a port of 1 to 65535: {error}"
        ) from error
    return host, int(port)


def format_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
