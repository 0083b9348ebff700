"""Connections that we open to other systems."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from typing import Protocol

from offsite.clock import Clock
from offsite.errors import CertificateChanged, PeerRefused, PeerUnreachable
from offsite.replication.link.channel import PeerChannel
from offsite.replication.link.identity import Certificates, Introduces, fingerprint_of
from offsite.replication.link.pinning import client_context, server_name_of
from offsite.replication.naming.addresses import format_address, parse_address
from offsite.replication.wire.exchange import ANSWER_SECONDS, SILENCE_SECONDS, Asking
from offsite.replication.wire.messages import VERSION_OLDEST, Hello

CONNECT_SECONDS = 10.0
CONVERSATION_PATIENCES = 3  # within so many times the patience with each word all is said


@dataclass(frozen=True)
class DialedConnection:
    """Open, and both sides have said who they are."""

    channel: PeerChannel
    asking: Asking
    hello: Hello
    certificate: bytes  # DER
    host: str
    port: int

    def __enter__(self) -> DialedConnection:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.channel.close()


class Dials(Protocol):
    """Who opens connections: a Dialer, or a simulator."""

    def dial(
        self, address: str, pinned: bytes | None = None, patience_seconds: float | None = None
    ) -> DialedConnection: ...


class Dialer:
    def __init__(self, certificates: Certificates, introductions: Introduces, clock: Clock) -> None:
        self._introductions = introductions
        self._clock = clock
        self._anonymous = client_context()
        self._known = client_context()
        self._known.load_cert_chain(certificates.certificate_path, certificates.key_path)
        self._known_as = server_name_of(certificates.certificate_der)

    def dial(
        self, address: str, pinned: bytes | None = None, patience_seconds: float | None = None
    ) -> DialedConnection:
        """Connects to the peer port of a system. With the certificate that is `pinned` for it (DER) we show
        our own, and hear only from that system; without we are anonymous, and it may be anyone. `patience_seconds`
        is how long each word of the other side may take, if that is to be less than usual; a few times as long is then
        what all that is received may take, unless the caller sets the channel another end.

        Raises BadParameter, PeerUnreachable, PeerRefused, IncarnationRefused, or CertificateChanged; a message of ours
        is sent only once the certificate was found to be the pinned one.
        """
        host, port = parse_address(address)
        silence_seconds, answer_seconds = SILENCE_SECONDS, ANSWER_SECONDS
        if patience_seconds is not None:
            silence_seconds = answer_seconds = patience_seconds
        connect_seconds = min(CONNECT_SECONDS, silence_seconds)
        raw = _connect(host, port, connect_seconds)
        try:
            sock = self._secure(raw, address, pinned)
            certificate = sock.getpeercert(binary_form=True)
            assert certificate is not None  # a TLS server always shows one
            if pinned is not None and certificate != pinned:
                raise CertificateChanged(
                    f"{address} shows a certificate with the fingerprint {fingerprint_of(certificate)}, but "
                    f"{fingerprint_of(pinned)} is pinned for it; if its certificate was replaced on purpose, log "
                    "in there again: set peer-connection remote-username USER NAME"
                )
            channel = PeerChannel(sock, address)
            if patience_seconds is not None:
                channel.end_within(CONVERSATION_PATIENCES * patience_seconds)
            asking = Asking(address, self._clock, connect_seconds, connect_seconds)
            asked_at = self._clock.monotonic()
            hello = channel.ask(asking, self._introductions.hello(pinned), Hello)
            waited_seconds = self._clock.monotonic() - asked_at
            if hello.version < VERSION_OLDEST:
                raise PeerRefused(f"{address} speaks version {hello.version}; {VERSION_OLDEST} or newer is required")
            self._introductions.meet(pinned, hello, waited_seconds)
            channel.remote = hello.system_name
            asking = Asking(hello.system_name, self._clock, silence_seconds, answer_seconds)
            return DialedConnection(channel, asking, hello, certificate, host, port)
        except BaseException:
            raw.close()
            raise

    def _secure(self, raw: socket.socket, address: str, pinned: bytes | None) -> ssl.SSLSocket:
        try:
            if pinned is None:
                return self._anonymous.wrap_socket(raw)
            return self._known.wrap_socket(raw, server_hostname=self._known_as)
        except OSError as error:
            raise PeerUnreachable(
                f"cannot reach {address}: the TLS handshake failed(another program may listen there): {error}"
            ) from error


def _connect(host: str, port: int, connect_seconds: float) -> socket.socket:
    try:
        raw = socket.create_connection((host, port), timeout=connect_seconds)
    except OSError as error:
        timed_out = isinstance(error, TimeoutError) and not error.strerror  # ours, not one of the network
        reason = f"timeout: no answer within {connect_seconds:g} s" if timed_out else error.strerror or str(error)
        raise PeerUnreachable(f"cannot reach {format_address(host, port)}: {reason}") from error
    except UnicodeError as error:  # a part of the name is longer than DNS allows
        raise PeerUnreachable(f"cannot reach {format_address(host, port)}: invalid host name: {error}") from error
    prepare_socket(raw)
    return raw


def prepare_socket(raw: socket.socket) -> None:
    """For both ends: answers go out at once, and a link that has died is noticed while nobody sends."""
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
