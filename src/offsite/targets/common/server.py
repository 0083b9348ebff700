"""The server of a target: listeners, the connections they bring, and a clean stop.

One thread accepts for all listeners; each connection has a thread of its own. What connections share is
immutable or safe to share: nothing that one client does holds a lock that another one needs.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from offsite.access.certificates import Authority
from offsite.access.initiator_certificates import InitiatorCertificates
from offsite.admission import Admission
from offsite.clock import Clock, SystemClock
from offsite.errors import NoPlace
from offsite.events import ignore
from offsite.targets.common import identity, listeners
from offsite.targets.common.connection import ServingSettings, TargetConnection
from offsite.targets.common.counters import Counters, Port
from offsite.targets.common.grants import Grants
from offsite.targets.common.listeners import Address
from offsite.targets.common.memory import Memory
from offsite.targets.common.workers import Workers

CONNECTIONS_MAX = 256
HANDSHAKE_SECONDS, SEND_SECONDS = 10.0, 30.0
_PAUSE_SECONDS = 0.1  # when the system has no descriptors or threads left, before accepting again
_CLOSED = -1

_log = structlog.get_logger(__name__)


class TargetServer:
    """Serves `grants` on all of `listen`, each client by a `connection` of its own.

    Clients that are not on this machine must use TLS and show a certificate of `authority`; without an
    authority they are turned away. `force_tls` asks the same of those on this machine. All methods may be
    called from any thread.
    """

    def __init__(
        self,
        connection: type[TargetConnection],
        listen: Sequence[Address],
        grants: Grants,
        authority: Authority | None,
        *,
        counters: Counters | None = None,
        clock: Clock | None = None,
        force_tls: bool = False,
        admission: Admission | None = None,
        certificates: InitiatorCertificates | None = None,
        handshake_seconds: float = HANDSHAKE_SECONDS,
        send_seconds: float = SEND_SECONDS,
        memory: Memory | None = None,
    ) -> None:
        self.name = connection.NAME
        self.protocol = connection.PROTOCOL
        self.id_prefix = connection.ID_PREFIX
        self._connection = connection
        self._listen = tuple(listen)
        clock = clock or SystemClock()
        self._admission = admission or Admission(f"over {self.name}", lambda: CONNECTIONS_MAX, ignore, clock)
        self._settings = ServingSettings(
            grants=grants,
            counters=counters or Counters(),
            tls_contexts={
                "certificate optional": authority.server_context(require_client_certificate=False),
                "certificate required": authority.server_context(require_client_certificate=True),
            }
            if authority is not None
            else {},
            workers=Workers(memory),
            clock=clock,
            handshake_seconds=handshake_seconds,
            send_seconds=send_seconds,
            force_tls=force_tls,
            certificates=certificates,
        )
        self._lock = threading.Lock()
        self._connections: dict[TargetConnection, threading.Thread] = {}
        self._listeners: list[socket.socket] = []
        self._stopping = threading.Event()
        self._wakeup = _CLOSED  # eventfd that wakes the acceptor
        self._acceptor = threading.Thread(target=self._accept_all, name=f"{self.protocol}-accept", daemon=True)

    def start(self) -> None:
        """Listens and returns. Raises InUse for an address that is taken, BadParameter for one that is not
        this machine's; then it listens nowhere."""
        try:
            for address in self._listen:
                self._listeners.append(listeners.listen(address, self.name))
        except Exception:
            self._close_listeners()
            raise
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        for listener in self._listeners:
            self._settings.counters.add_port(self._port_of(listener))
        self._acceptor.start()
        _log.info(f"{self.name} listens", addresses=[str(address) for address in self.addresses()])

    def addresses(self) -> list[Address]:
        """Where it listens, with the ports that it got."""
        return [listeners.address_of(listener) for listener in self._listeners]

    def stop(self, timeout_seconds: float) -> None:
        """Accepts no more, lets what has been received be answered, closes all connections. Returns at the
        latest after `timeout_seconds`; connections that wait for a dead disk may then still be there."""
        deadline = time.monotonic() + timeout_seconds
        self._stopping.set()
        with self._lock:
            if self._wakeup != _CLOSED:
                os.eventfd_write(self._wakeup, 1)
        if self._acceptor.ident is not None:
            self._acceptor.join(timeout_seconds)
        self._end(lambda _connection: True, deadline)
        self._settings.workers.stop()

    def disconnect(self, image_id: int, timeout_seconds: float = 5.0) -> int:
        """Ends all connections to an image, with what they have received answered; returns how many are
        left at `timeout_seconds`."""
        return self._end(
            lambda connection: any(grant.image.id == image_id for grant in connection.grants),
            time.monotonic() + timeout_seconds,
        )

    def recheck(self, timeout_seconds: float = 5.0) -> int:
        """Ends all connections whose image is not mapped to their initiator as it was when they were made, and
        those whose certificate was revoked; to be called after maps have changed, or a revocation. Returns how many
        are left at `timeout_seconds`."""
        return self._end(lambda connection: not connection.may_go_on(), time.monotonic() + timeout_seconds)

    def connections(self) -> list[tuple[str, int]]:
        """Initiator and id of the image, of every use of an image by a connection."""
        with self._lock:
            open_now = list(self._connections)
        return [(each.initiator, grant.image.id) for each in open_now for grant in each.grants]

    # -- ending ----------------------------------------------------------------------------------------------

    def _end(self, chosen: Callable[[TargetConnection], bool], deadline: float) -> int:
        with self._lock:
            found = dict(self._connections)
        ending = {connection: thread for connection, thread in found.items() if chosen(connection)}
        now = time.monotonic()
        for how, until in ((socket.SHUT_RD, now + (deadline - now) / 2), (socket.SHUT_RDWR, deadline)):
            for connection in ending:
                connection.cut(how)
            for thread in ending.values():
                thread.join(max(until - time.monotonic(), 0))
            ending = {connection: thread for connection, thread in ending.items() if thread.is_alive()}
        return len(ending)

    # -- accepting -------------------------------------------------------------------------------------------

    def _accept_all(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wakeup, selectors.EVENT_READ)
            for listener in self._listeners:
                selector.register(listener, selectors.EVENT_READ)
            while not self._stopping.is_set():
                for key, _ in selector.select():
                    if isinstance(key.fileobj, socket.socket):
                        self._accept(key.fileobj)
        self._close_listeners()
        with self._lock:
            os.close(self._wakeup)
            self._wakeup = _CLOSED

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, peer = listener.accept()
        except BlockingIOError:
            return  # it has gone again
        except OSError as error:
            _log.warning(f"{self.name} cannot accept", reason=str(error))
            self._stopping.wait(_PAUSE_SECONDS)
            return
        sock.setblocking(True)
        client_address = identity.UNIX if listener.family == socket.AF_UNIX else str(peer[0])
        connection = self._connection(sock, client_address, self._port_of(listener), self._settings)
        try:
            connection.place = self._admission.arrive(client_address, partial(connection.cut, socket.SHUT_RDWR))
        except NoPlace:
            sock.close()
            return
        self._start(connection)

    def _port_of(self, listener: socket.socket) -> Port:
        return Port(self.protocol, listeners.as_text(listeners.address_of(listener)))

    def _start(self, connection: TargetConnection) -> None:
        thread = threading.Thread(target=self._serve, args=(connection,), name=self.protocol, daemon=True)
        with self._lock:
            self._connections[connection] = thread
        try:
            thread.start()
        except RuntimeError as error:
            self._forget(connection)
            connection.close()
            reason = f"no thread: {error}"
            _log.warning(f"{self.name} connection refused", client=connection.client_address, reason=reason)
            self._stopping.wait(_PAUSE_SECONDS)

    def _serve(self, connection: TargetConnection) -> None:
        try:
            connection.run()
        finally:
            self._forget(connection)

    def _forget(self, connection: TargetConnection) -> None:
        if connection.place is not None:
            connection.place.leave()
        with self._lock:
            del self._connections[connection]

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listeners.close(listener)
