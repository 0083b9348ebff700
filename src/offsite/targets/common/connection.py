"""One client of a target, from accept to the end, in a thread of its own.

    accepted ──▶ the target's `serve` ──▶ closed        anything that goes wrong, anywhere ──▶ closed, with one line in
                                                        the log

A target makes a class of its own of it: `serve` speaks the protocol. On its way it says who the client is
(`initiator`), that the client is known now (`settle`), and which images it uses (`use`): from then on the server finds
the connection when a map changes, a volume is deleted, or a certificate is revoked.
"""

from __future__ import annotations

import os
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import structlog

from offsite.access.initiator_certificates import CertificateRevoked, InitiatorCertificates
from offsite.admission import Place
from offsite.clock import Clock
from offsite.errors import NotAllowed, OffsiteError
from offsite.targets.common import identity
from offsite.targets.common.channel import ClientChannel, ClientGone, ClientStalled, PlainChannel, TlsChannel
from offsite.targets.common.counters import Activity, Counters, Port
from offsite.targets.common.grants import Grant, Grants
from offsite.targets.common.workers import Workers

CertificateRule = Literal["certificate optional", "certificate required"]
TlsMode = Literal["off", "offered", "required"]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServingSettings:
    """What all connections of a server share."""

    grants: Grants
    counters: Counters
    tls_contexts: Mapping[CertificateRule, ssl.SSLContext]  # none: TLS is not to be had
    workers: Workers
    clock: Clock
    handshake_seconds: float  # from accept until it is known who this is
    send_seconds: float  # in which a client must take channel.PROGRESS_BYTES of replies
    force_tls: bool  # also on loopback and on the Unix socket
    certificates: InitiatorCertificates | None  # none: every certificate of the authority is good


class TargetConnection(ABC):
    """`run` is for the connection's own thread; `cut`, `may_go_on` and the attributes are for all."""

    NAME: ClassVar[str]  # of the protocol, for people: "NBD"
    PROTOCOL: ClassVar[str]  # for programs: "nbd"
    ID_PREFIX: ClassVar[str]  # of initiators that come without a certificate: "nbd:"

    def __init__(self, sock: socket.socket, client_address: str, port: Port, settings: ServingSettings) -> None:
        """Waits for nothing. `client_address` is an IP address, or identity.UNIX."""
        self.client_address = client_address
        self.initiator = f"{self.ID_PREFIX}{client_address}"
        self.place: Place | None = None  # set by the server before `run`
        self.grants: tuple[Grant, ...] = ()  # that are in use
        self._port = port
        self._settings = settings
        self._plain = PlainChannel(sock, settings.send_seconds)
        self._channel: ClientChannel = self._plain
        self._certificate_der: bytes | None = None
        self._cut_how: int | None = None  # the last one asked for

    @abstractmethod
    def serve(self, log: Any) -> None:
        """Speaks the protocol until the client is done. Raises OffsiteError, ClientGone."""

    def run(self) -> None:
        """Serves the client until it goes or is cut off. Raises nothing."""
        log = _log.bind(client=self.client_address)
        try:
            self._plain.prepare()
            self.serve(log)
        except OffsiteError as error:
            log.warning(f"{self.NAME} connection closed", reason=str(error))
        except ClientStalled as error:
            log.warning(f"{self.NAME} connection closed", reason=f"timed out: {error}")
        except ClientGone as error:
            log.info(f"{self.NAME} client disconnected", reason=str(error))
        except Exception:
            log.exception(f"{self.NAME} connection closed by a defect")
        finally:
            self._channel.close()

    def cut(self, how: int) -> None:
        """Ends the connection: with socket.SHUT_RD after what has been received, with SHUT_RDWR at once. From any
        thread."""
        self._cut_how = how
        self._channel.cut(how)

    def close(self) -> None:
        """Instead of `run`."""
        self._channel.close()

    def may_go_on(self) -> bool:
        """Whether certificate and maps allow it as they did when it began. From any thread."""
        try:
            self.check_certificate()
        except CertificateRevoked:
            return False
        return all(self._settings.grants.still_granted(grant, self.initiator) for grant in self.grants)

    # -- for `serve` -----------------------------------------------------------------------------------------

    def settle(self) -> None:
        """It is known now who this is. Raises NoPlace. A name that a certificate proves is one holder, whatever its
        addresses."""
        if self.place is not None:
            self.place.settle(self.initiator if identity.is_proven(self.initiator) else self.place.network)

    def use(self, grant: Grant) -> None:
        """From here on the server finds this connection by its image; an unmap or a revocation just before has to
        count. Raises NotAllowed, CertificateRevoked."""
        self.grants = (*self.grants, grant)
        self.check_certificate()
        grants = self._settings.grants
        if not grants.still_granted(grant, self.initiator):
            raise NotAllowed(f"{grant.name!r} is no longer mapped to {self.initiator}")
        grants.seen(self.initiator, self._settings.clock.now())

    def counting(self, grant: Grant) -> AbstractContextManager[Activity]:
        """What the client does with an image is counted in it."""
        return self._settings.counters.counting(grant.image.uuid, self.initiator, self._port)

    def tls_mode(self) -> TlsMode:
        if self._settings.force_tls or identity.requires_tls(self.client_address):
            if not self._settings.tls_contexts:
                raise NotAllowed("TLS is required from this address, and this server has no certificate")
            return "required"
        return "offered" if self._settings.tls_contexts else "off"

    def start_tls(self, deadline: float) -> None:
        """Shakes hands; a certificate that the client shows says who it is."""
        required = self.tls_mode() == "required"
        context = self._settings.tls_contexts["certificate required" if required else "certificate optional"]
        channel = TlsChannel(self._plain, context)
        self._channel = channel
        if self._cut_how is not None:  # perhaps just when the plain channel had no socket any more
            channel.cut(self._cut_how)
        channel.shake_hands(deadline)
        self._certificate_der = channel.certificate_der()
        self.check_certificate()
        self.initiator = identity.of_certificate(self._certificate_der) or self.initiator

    def check_certificate(self) -> None:
        """Raises CertificateRevoked."""
        if self._settings.certificates is not None and self._certificate_der is not None:
            self._settings.certificates.check(self._certificate_der)


def prefer_batches() -> None:
    """Has the scheduler not interrupt a client for this thread when they share a processor.

    It would, at the first of the requests that the client is about to send, and each batch would be a single
    request: with that, one busy 2-core machine served 31,000 random 4 KiB reads a second at queue depth 16,
    without it 75,000. With a processor to itself this thread wakes as fast as ever. See sched(7).
    """
    try:
        if os.sched_getscheduler(0) == os.SCHED_OTHER:  # nobody has chosen another policy for us
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError as error:  # a sandbox may forbid it
        _log.debug("a connection keeps its scheduling policy", reason=str(error))
