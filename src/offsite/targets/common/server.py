"""The NBD server: listeners, the connections they bring, and a clean stop.

One thread accepts for all listeners; each connection has a thread of its own. What connections share is
immutable or safe to share: nothing that one client does holds a lock that another one needs.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import structlog

from offsite.access.certificates import Authority
from offsite.access.initiator_certificates import CertificateRevoked, InitiatorCertificates
from offsite.admission import Admission
from offsite.clock import Clock, SystemClock
from offsite.errors import BadParameter, InUse, NoPlace
from offsite.events import ignore
from offsite.targets.common import identity
from offsite.targets.common.background import Workers
from offsite.targets.common.grants import Exports
from offsite.targets.common.memory import Memory
from offsite.targets.nbd.connection import ClientConnection, ServingSettings

Address = tuple[str, int] | Path
"""Host and TCP port (0: any free one), or the path of a Unix socket."""

CONNECTIONS_MAX = 256
BACKLOG = 128
HANDSHAKE_SECONDS, SEND_SECONDS = 10.0, 30.0
_PAUSE_SECONDS = 0.1  # when the system has no descriptors or threads left, before accepting again
_UNIX_SOCKET_MODE = 0o600
_CLOSED = -1

_log = structlog.get_logger(__name__)


class NbdServer:
    """Serves `exports` on all of `listen`.

    Clients that are not on this machine must use TLS and show a certificate of `authority`; without an
    authority they are turned away. `force_tls` asks the same of those on this machine. All methods may be
    called from any thread.
    """

    def __init__(
        self,
        listen: Sequence[Address],
        exports: Exports,
        authority: Authority | None,
        *,
        clock: Clock | None = None,
        force_tls: bool = False,
        admission: Admission | None = None,
        certificates: InitiatorCertificates | None = None,
        handshake_seconds: float = HANDSHAKE_SECONDS,
        send_seconds: float = SEND_SECONDS,
        memory: Memory | None = None,
    ) -> None:
        self._listen = tuple(listen)
        clock = clock or SystemClock()
        self._admission = admission or Admission("over NBD", lambda: CONNECTIONS_MAX, ignore, clock)
        self._settings = ServingSettings(
            exports=exports,
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
        self._connections: dict[ClientConnection, threading.Thread] = {}
        self._listeners: list[socket.socket] = []
        self._stopping = threading.Event()
        self._wakeup = _CLOSED  # eventfd that wakes the acceptor
        self._acceptor = threading.Thread(target=self._accept_all, name="nbd-accept", daemon=True)

    def start(self) -> None:
        """Listens and returns. Raises InUse for an address that is taken, BadParameter for one that is not
        this machine's; then it listens nowhere."""
        try:
            for address in self._listen:
                self._listeners.append(_listener(address))
        except Exception:
            self._close_listeners()
            raise
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._acceptor.start()
        _log.info("NBD listens", addresses=[str(address) for address in self.addresses()])

    def addresses(self) -> list[Address]:
        """Where it listens, with the ports that it got."""
        return [_address_of(listener) for listener in self._listeners]

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
            lambda connection: connection.export is not None and connection.export.image.id == image_id,
            time.monotonic() + timeout_seconds,
        )

    def recheck(self, timeout_seconds: float = 5.0) -> int:
        """Ends all connections whose export is not mapped to their initiator as it was when they were made, and
        those whose certificate was revoked; to be called after maps have changed, or a revocation. Returns how many
        are left at `timeout_seconds`."""
        return self._end(lambda connection: not self._may_go_on(connection), time.monotonic() + timeout_seconds)

    def _may_go_on(self, connection: ClientConnection) -> bool:
        try:
            connection.check_certificate()
        except CertificateRevoked:
            return False
        export = connection.export
        return export is None or self._settings.exports.still_granted(export, connection.initiator)

    def connections(self) -> list[tuple[str, str]]:
        """Initiator and export name of every connection in its transmission phase."""
        with self._lock:
            open_now = list(self._connections)
        return [(each.initiator, each.export.name) for each in open_now if each.export is not None]

    # -- ending ----------------------------------------------------------------------------------------------

    def _end(self, chosen: Callable[[ClientConnection], bool], deadline: float) -> int:
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
            _log.warning("NBD cannot accept", reason=str(error))
            self._stopping.wait(_PAUSE_SECONDS)
            return
        sock.setblocking(True)
        client_address = identity.UNIX if listener.family == socket.AF_UNIX else str(peer[0])
        connection = ClientConnection(sock, client_address, self._settings)
        try:
            connection.place = self._admission.arrive(client_address, partial(connection.cut, socket.SHUT_RDWR))
        except NoPlace:
            sock.close()
            return
        self._start(connection)

    def _start(self, connection: ClientConnection) -> None:
        thread = threading.Thread(target=self._serve, args=(connection,), name="nbd", daemon=True)
        with self._lock:
            self._connections[connection] = thread
        try:
            thread.start()
        except RuntimeError as error:
            self._forget(connection)
            connection.close()
            _log.warning("NBD connection refused", client=connection.client_address, reason=f"no thread: {error}")
            self._stopping.wait(_PAUSE_SECONDS)

    def _serve(self, connection: ClientConnection) -> None:
        try:
            connection.run()
        finally:
            self._forget(connection)

    def _forget(self, connection: ClientConnection) -> None:
        if connection.place is not None:
            connection.place.leave()
        with self._lock:
            del self._connections[connection]

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            if listener.family == socket.AF_UNIX:
                Path(listener.getsockname()).unlink(missing_ok=True)
            listener.close()


def _listener(address: Address) -> socket.socket:
    family = socket.AF_UNIX
    if not isinstance(address, Path):
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if isinstance(address, Path):
            _remove_stale(address)
            os.fchmod(listener.fileno(), _UNIX_SOCKET_MODE)  # which bind gives to the file, from its first moment
            listener.bind(str(address))
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        kind = InUse if error.errno == errno.EADDRINUSE else BadParameter
        raise kind(f"NBD cannot listen on {_text(address)}: {error.strerror or error}") from error
    return listener


def _remove_stale(path: Path) -> None:
    """The socket that a process left behind which was killed. One that someone listens on stays."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()


def _address_of(listener: socket.socket) -> Address:
    name = listener.getsockname()
    return Path(name) if listener.family == socket.AF_UNIX else (name[0], name[1])


def _text(address: Address) -> str:
    return str(address) if isinstance(address, Path) else f"{address[0]}:{address[1]}"
