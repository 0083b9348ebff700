"""Who a system is to another one: its names, its certificate, its address."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from offsite import __version__
from offsite.replication.records.peer_records import PeerRecord
from offsite.replication.wire.messages import VERSION, Hello


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
