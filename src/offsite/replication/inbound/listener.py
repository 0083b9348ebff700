"""The peer port: takes connections of other systems in, a thread for each."""

from __future__ import annotations

import socket
import threading
import time

import structlog

from offsite.admission import Admission
from offsite.errors import NoPlace
from offsite.events import Source, acting_for
from offsite.replication.inbound.session import Requests, Session
from offsite.replication.link.dialer import prepare_socket
from offsite.replication.link.identity import Certificates, Introduces
from offsite.replication.link.pinning import server_context

SESSIONS_MAX = 128  # of peers; strangers have places of their own

_log = structlog.get_logger(__name__)


class PeerListener:
    def __init__(
        self,
        listen: tuple[str, int],
        certificates: Certificates,
        introductions: Introduces,
        requests: Requests,
        admission: Admission,
    ) -> None:
        self._listen = listen
        self._certificates = certificates
        self._introductions = introductions
        self._requests = requests
        self._admission = admission
        self._lock = threading.Lock()
        self._sessions: dict[Session, threading.Thread] = {}
        self._stopping = False
        self._listener: socket.socket | None = None

    def start(self) -> None:
        """Listens from when this returns. Raises OSError when the port is not to be had."""
        family = socket.AF_INET6 if ":" in self._listen[0] else socket.AF_INET
        self._context = server_context(self._certificates, self._requests.pinned_certificates)
        listener = self._listener = socket.create_server(self._listen, family=family, backlog=64)
        self._acceptor = threading.Thread(target=self._accept_all, args=(listener,), name="peer-accept", daemon=True)
        self._acceptor.start()

    @property
    def port(self) -> int:
        """Of the socket: with a port of 0 asked for, the one that was given."""
        assert self._listener is not None, "the listener was not started"
        return int(self._listener.getsockname()[1])

    def stop(self, timeout_seconds: float) -> None:
        """No new connections; those that are there are cut, and what they were doing ends. Harmless before a start."""
        if self._listener is None:
            return
        until = time.monotonic() + timeout_seconds
        with self._lock:
            self._stopping = True
            sessions = dict(self._sessions)
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(timeout_seconds)
        self._listener.close()
        for session in sessions:
            session.cut()
        for thread in sessions.values():
            thread.join(max(0.0, until - time.monotonic()))

    def _accept_all(self, listener: socket.socket) -> None:
        while not self._stopping:
            try:
                raw, address = listener.accept()
            except OSError as error:
                if self._stopping:
                    return
                _log.warning("cannot accept a peer", reason=str(error))
                time.sleep(0.1)  # out of descriptors, most likely: not all of a core for asking again
                continue
            self._take_in(raw, str(address[0]))

    def _take_in(self, raw: socket.socket, host: str) -> None:
        try:
            prepare_socket(raw)
            session = Session(raw, self._context, self._introductions, self._requests)
        except OSError as error:  # it has gone already
            _log.info("peer connection ended", host=host, reason=str(error))
            raw.close()
            return
        try:
            session.place = self._admission.arrive(host, session.cut)
        except NoPlace:
            session.cut()
            return
        thread = threading.Thread(target=self._serve, args=(session,), name=f"peer-{host}", daemon=True)
        with self._lock:
            stopping = self._stopping
            if not stopping:
                self._sessions[session] = thread
        if stopping or not _started(thread):
            self._forget(session)
            session.cut()

    def _serve(self, session: Session) -> None:
        try:
            with acting_for(Source.PEER):
                session.serve()
        finally:
            self._forget(session)

    def _forget(self, session: Session) -> None:
        if session.place is not None:
            session.place.leave()
        with self._lock:
            self._sessions.pop(session, None)


def _started(thread: threading.Thread) -> bool:
    try:
        thread.start()
    except RuntimeError as error:
        _log.warning("peer connection refused", reason=f"no thread for it: {error}")
        return False
    return True
