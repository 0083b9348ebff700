"""One client, from accept to the end: handshake, perhaps TLS, transmission. A thread of its own.

accepted ──Negotiation──▶ export chosen ──Transmission──▶ closed
              │   ▲
              └TLS┘          anything that goes wrong, anywhere ──▶ closed, with one line in the log
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import structlog

from offsite.access.initiator_certificates import InitiatorCertificates
from offsite.admission import Place
from offsite.clock import Clock
from offsite.errors import NoPlace, NotAllowed, OffsiteError
from offsite.targets.common import identity
from offsite.targets.common.background import Workers
from offsite.targets.common.channel import ClientChannel, ClientGone, ClientStalled, PlainChannel, TlsChannel
from offsite.targets.common.grants import Export, Exports
from offsite.targets.nbd.negotiation import Negotiated, Negotiation, State, TlsMode
from offsite.targets.nbd.transmission import Transmission

CertificateRule = Literal["certificate optional", "certificate required"]

_HANDSHAKE_BUFFER_BYTES = 4096

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServingSettings:
    """What all connections of a server share."""

    exports: Exports
    tls_contexts: Mapping[CertificateRule, ssl.SSLContext]  # none: TLS is not to be had
    workers: Workers
    clock: Clock
    handshake_seconds: float  # from accept to the choice of an export
    send_seconds: float  # in which a client must take channel.PROGRESS_BYTES of replies
    force_tls: bool  # also on loopback and on the Unix socket
    certificates: InitiatorCertificates | None  # none: every certificate of the authority is good


class InitiatorLookup:
    """The exports as `initiator` sees them. See negotiation.Lookup."""

    def __init__(self, settings: ServingSettings, initiator: str, settle: Callable[[], None]) -> None:
        self._exports = settings.exports
        self._initiator = initiator
        self._settle = settle

    def visible(self) -> list[Export]:
        return self._exports.visible(self._initiator)

    def find(self, name: str) -> Export | None:
        return self._exports.find(name, self._initiator)

    def refusal(self) -> str:
        try:
            self._settle()
        except NoPlace as error:
            return str(error)
        return ""


class ClientConnection:
    """`run` is for the connection's own thread; `cut` and the attributes are for all."""

    def __init__(self, sock: socket.socket, client_address: str, settings: ServingSettings) -> None:
        self.client_address = client_address
        self.initiator = identity.initiator_id(client_address, None)
        self.export: Export | None = None  # once it is chosen
        self._certificate_der: bytes | None = None
        self.place: Place | None = None  # which the server gives it
        self._settings = settings
        self._plain = PlainChannel(sock, settings.send_seconds)
        self._channel: ClientChannel = self._plain
        self._cut_how: int | None = None  # the last one asked for

    def run(self) -> None:
        """Serves the client until it goes or is cut off. Raises nothing."""
        log = _log.bind(client=self.client_address)
        try:
            self._plain.prepare()
            negotiation = self._negotiate()
            if negotiation.outcome is not None:
                log = log.bind(export=negotiation.outcome.export.name, initiator=self.initiator)
                log.info("NBD client connected")
                self._transmit(negotiation.outcome, negotiation.left_over())
                log.info("NBD client disconnected")
        except OffsiteError as error:
            log.warning("NBD connection closed", reason=str(error))
        except ClientStalled as error:
            log.warning("NBD connection closed", reason=f"deadline passed: {error}")
        except ClientGone as error:
            log.info("NBD client went away", reason=str(error))
        except Exception:
            log.exception("NBD connection closed by a defect")
        finally:
            self._channel.close()

    def cut(self, how: int) -> None:
        """Ends the connection: with socket.SHUT_RD after what has been received, with SHUT_RDWR at once."""
        self._cut_how = how
        self._channel.cut(how)

    def close(self) -> None:
        """Instead of `run`."""
        self._channel.close()

    def _settle(self) -> None:
        """Raises NoPlace. A name that a certificate proves is one holder, whatever its addresses."""
        if self.place is not None:
            named = self.initiator.startswith("tls:")
            self.place.settle(self.initiator if named else self.place.network)

    def _negotiate(self) -> Negotiation:
        deadline = time.monotonic() + self._settings.handshake_seconds
        negotiation = Negotiation(self._lookup(), self._tls_mode())
        buffer = memoryview(bytearray(_HANDSHAKE_BUFFER_BYTES))
        self._channel.send(negotiation.greeting(), deadline)
        while negotiation.state not in (State.TRANSMISSION, State.ENDED):
            received = self._channel.receive_before(buffer, deadline)
            if not received:
                break
            reply = negotiation.receive(buffer[:received])
            if negotiation.outcome is not None:
                self._enter(negotiation.outcome.export)
            self._channel.send(reply, deadline)
            if negotiation.state is State.TLS:
                self._start_tls(deadline)
                negotiation.tls_started(self._lookup())
        return negotiation

    def _lookup(self) -> InitiatorLookup:
        return InitiatorLookup(self._settings, self.initiator, self._settle)

    def _tls_mode(self) -> TlsMode:
        if self._settings.force_tls or identity.requires_tls(self.client_address):
            if not self._settings.tls_contexts:
                raise NotAllowed("TLS is required from there, and this server has no certificate to offer it")
            return "required"
        return "offered" if self._settings.tls_contexts else "off"

    def _start_tls(self, deadline: float) -> None:
        required = self._tls_mode() == "required"
        context = self._settings.tls_contexts["certificate required" if required else "certificate optional"]
        channel = TlsChannel(self._plain, context)
        self._channel = channel
        if self._cut_how is not None:  # perhaps just when the plain channel had no socket any more
            channel.cut(self._cut_how)
        channel.shake_hands(deadline)
        self._certificate_der = channel.certificate_der()
        self.check_certificate()
        self.initiator = identity.initiator_id(self.client_address, self._certificate_der)

    def check_certificate(self) -> None:
        """Raises CertificateRevoked."""
        if self._settings.certificates is not None and self._certificate_der is not None:
            self._settings.certificates.check(self._certificate_der)

    def _enter(self, export: Export) -> None:
        """From here on the server finds this connection by its export; an unmap or a revocation just before has to
        count."""
        self.export = export
        self.check_certificate()
        exports = self._settings.exports
        if not exports.still_granted(export, self.initiator):
            raise NotAllowed(f"{export.name!r} is not mapped to {self.initiator} any more")
        exports.seen(self.initiator, self._settings.clock.now())

    def _transmit(self, outcome: Negotiated, left_over: bytes) -> None:
        _prefer_batches()
        with closing(Transmission(self._channel, outcome, self._settings.workers, self.initiator)) as transmission:
            transmission.run(left_over)


def _prefer_batches() -> None:
    """Has the scheduler not interrupt a client for this thread when they share a processor.

    It would, at the first of the requests that the client is about to send, and each batch would be a single
    request: with that, one busy 2-core machine served 31,000 random 4 KiB reads a second at queue depth 16,
    without it 75,000. With a processor to itself this thread wakes as fast as ever. See sched(7).
    """
    try:
        if os.sched_getscheduler(0) == os.SCHED_OTHER:  # nobody has chosen another policy for us
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError as error:  # a sandbox may forbid it
        _log.debug("NBD connection keeps its scheduling policy", reason=str(error))
