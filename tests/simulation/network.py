"""The network between two systems: streams of bytes that are delayed, cut, or go nowhere.

Under the real `Channel`, `Session` and `Dialer` there are sockets of our own. A connection that breaks may tell both
ends, or none: then they learn of it by their own deadlines. What was on its way when one end closed still arrives,
as with TCP: so an old connection's last words may be heard after a new one was made.
"""

from __future__ import annotations

import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from offsite.errors import PeerUnreachable
from offsite.replication.inbound import session
from offsite.replication.link import dialer
from offsite.replication.link.channel import PeerChannel
from offsite.replication.link.dialer import Dialer
from offsite.replication.peers.introductions import Introductions
from offsite.replication.wire.messages import AnyMessage, Batch
from tests.simulation.faults import Faults
from tests.simulation.tasks import Tasks

if TYPE_CHECKING:
    from tests.simulation.machine import Machine

LATENCY_SECONDS = 0.02
CLOG_SECONDS = 15.0
LATE_SECONDS = 8.0
FOREVER = float("inf")
_NOTHING = memoryview(b"")


class Stream:
    """One direction of a connection."""

    def __init__(self) -> None:
        self.chunks: deque[tuple[float, bytes]] = deque()
        self.arrives_at = 0.0  # of what was sent last
        self.ends_at = FOREVER  # the receiver sees the end
        self.error: OSError | None = None  # in place of a plain end


class Link:
    """A connection."""

    def __init__(self, network: Network, client: Machine, server: Machine) -> None:
        self.ends = (client, server)
        self.streams = (Stream(), Stream())  # to the server, to the client
        self.client_certificate: bytes | None = None
        self.is_silent = False  # what is sent gets nowhere, and nobody is told
        self._network = network

    def cut(self, *, silently: bool) -> None:
        """Both ends see it end, or nobody hears anything any more."""
        for stream in self.streams:
            if silently:
                self.is_silent = True
            else:
                stream.ends_at = min(stream.ends_at, max(stream.arrives_at, self._network.tasks.now))
                self._network.tasks.alarm(stream.ends_at)


class Socket:
    """One end of a link, as far as Channel needs a socket."""

    def __init__(self, network: Network, link: Link, is_server: bool) -> None:
        self.link = link
        self.remote_certificate = b""
        self.machine = link.ends[is_server]
        self._network = network
        self._inbound = link.streams[0 if is_server else 1]
        self._outbound = link.streams[1 if is_server else 0]
        self._timeout: float | None = None
        self._closed = False

    def what_arrives(self, message: AnyMessage) -> list[AnyMessage]:
        return self._network.what_arrives(self.machine, message)

    def settimeout(self, seconds: float | None) -> None:
        self._timeout = seconds

    def getpeercert(self, binary_form: bool = False) -> bytes:
        del binary_form
        return self.remote_certificate

    def sendall(self, data: bytes | memoryview) -> None:
        tasks = self._network.tasks
        tasks.switch()
        if self._closed or self._inbound.ends_at <= tasks.now or self._outbound.ends_at < FOREVER:
            raise BrokenPipeError("simulated: the connection has ended")
        delay_seconds = self._network.delay_seconds(self.link)
        if not self.link.is_silent and delay_seconds is not None:
            stream = self._outbound
            stream.arrives_at = max(stream.arrives_at, tasks.now + delay_seconds)
            stream.chunks.append((stream.arrives_at, bytes(data)))
            tasks.alarm(stream.arrives_at)
        if self.link.streams[0].ends_at <= tasks.now:
            raise ConnectionResetError("simulated: the connection broke")

    def recv_into(self, buffer: memoryview) -> int:
        tasks = self._network.tasks
        until = None if self._timeout is None else tasks.now + self._timeout
        if not tasks.wait(self.has_something, until):
            raise TimeoutError("simulated: nothing came")
        if self._closed or not self._inbound.chunks or self._inbound.chunks[0][0] > tasks.now:
            if self._inbound.error is not None:
                raise self._inbound.error
            return 0
        arrives_at, data = self._inbound.chunks.popleft()
        count = min(len(buffer), len(data))
        buffer[:count] = data[:count]
        if count < len(data):
            self._inbound.chunks.appendleft((arrives_at, data[count:]))
        return count

    def has_something(self) -> bool:
        now = self._network.tasks.now
        chunks = self._inbound.chunks
        return self._closed or bool(chunks and chunks[0][0] <= now) or (not chunks and self._inbound.ends_at <= now)

    def pending(self) -> int:
        return 0

    def shutdown(self) -> None:
        """This end hears nothing any more; the other one hears what is on its way, and then the end."""
        self._inbound.chunks.clear()
        self._inbound.ends_at = 0.0
        if not self.link.is_silent:
            now = self._network.tasks.now
            self._outbound.ends_at = min(self._outbound.ends_at, max(self._outbound.arrives_at, now + LATENCY_SECONDS))
            self._network.tasks.alarm(self._outbound.ends_at)

    def close(self) -> None:
        if not self._closed:
            self.shutdown()
            self._closed = True


class SimulatedChannel(PeerChannel):
    """The real framing, over a socket of ours."""

    def __init__(self, sock: Socket, remote: str) -> None:
        self.remote = remote
        self.deadline = None
        self.wire_bytes = 0
        self._socket = sock  # type: ignore[assignment]  # all of it that a channel uses is there
        self._sock = sock
        self._head = memoryview(bytearray(12))
        self._body = memoryview(bytearray(0))
        self._payload = memoryview(bytearray(0))

    def send(self, message: AnyMessage, table: bytes = b"", data: memoryview = _NOTHING) -> None:
        for said in self._sock.what_arrives(message):
            super().send(said, *((table, data) if isinstance(said, Batch) else ()))

    def readable(self) -> bool:
        return self._sock.has_something()

    def linger(self, seconds: float) -> None:
        del seconds  # what the other end still sends is not looked at
        self._sock.shutdown()

    def cut(self) -> None:
        self._sock.shutdown()


class SimulatedSession(session.Session):
    """The real conversation with whoever has connected; who that is was seen by TLS, which is not simulated."""

    def __init__(self, machine: Machine, sock: Socket) -> None:
        self._sock = sock
        self._raw = sock  # type: ignore[assignment]  # it is only closed
        self._introductions = machine.replication.introductions
        self._requests = machine.replication.peer_api
        self._host = sock.link.ends[0].host
        self._channel = None
        self._worker = session.__dict__["ThreadPoolExecutor"](1, thread_name_prefix=f"{machine.name}-worker")
        self._side = None
        self._run = None
        self.place = None  # places are not simulated
        self._ended_by = "the connection ended"

    def _secure(self) -> PeerChannel:
        shown = self._sock.link.client_certificate
        channel = self._channel = SimulatedChannel(self._sock, self._host)
        if shown is not None and shown not in self._requests.pinned_certificates():
            error = ssl.SSLError(1, "simulated: unknown certificate")
            error.reason = "TLSV1_ALERT_UNKNOWN_CA"
            self._sock.link.streams[1].error = error
            raise PeerUnreachable("no TLS: unknown certificate")
        self._certificate = shown
        return channel


class SimulatedDialer(Dialer):
    """The real first words."""

    def __init__(self, network: Network, machine: Machine) -> None:
        self._network = network
        self._machine = machine
        self._clock = machine.clock

    @property
    def _introductions(self) -> Introductions:  # type: ignore[override]  # it is made after the dialer
        return self._machine.replication.introductions

    def _secure(self, raw: socket.socket, address: str, pinned: bytes | None) -> ssl.SSLSocket:
        del address
        found: Any = raw
        self._network.serve(found, self._machine.authority.certificate_der if pinned is not None else None)
        return found  # type: ignore[no-any-return]  # a Socket, which stands for both


class Network:
    def __init__(self, tasks: Tasks, faults: Faults) -> None:
        self.tasks = tasks
        self.faults = faults
        self.machines: dict[str, list[Machine]] = {}  # by their host; two, when one system lives twice
        self.links: list[Link] = []
        self.parted_until = 0.0
        self.what_arrives: Callable[[Machine, AnyMessage], list[AnyMessage]] = lambda _sender, message: [message]
        dialer.__dict__["_connect"] = self.connect
        dialer.__dict__["PeerChannel"] = SimulatedChannel

    # -- connecting ------------------------------------------------------------------------------------------------

    def connect(self, host: str, port: int, connect_seconds: float) -> Socket:
        """In place of dialer._connect."""
        del port
        client: Any = self.tasks.current and self.tasks.current.owner
        server = self._who_answers(host)
        if self.is_parted() or self.faults.strikes("dials that got nowhere", self.faults.dial_loss):
            self.tasks.sleep(connect_seconds)
            raise PeerUnreachable(f"cannot reach {host}: timed out")
        self.tasks.sleep(LATENCY_SECONDS * self.faults.random.random())
        if not server.is_up:
            raise PeerUnreachable(f"cannot reach {host}: Connection refused")
        link = Link(self, client, server)
        self.links.append(link)
        sock = Socket(self, link, is_server=False)
        sock.remote_certificate = server.authority.certificate_der
        return sock

    def _who_answers(self, host: str) -> Machine:
        """Two that have one address: now the one, now the other."""
        machines = self.machines[host]
        up = [machine for machine in machines if machine.is_up]
        return self.faults.random.choice(up) if len(up) > 1 else (up or machines)[0]

    def serve(self, sock: Socket, client_certificate: bytes | None) -> None:
        """The TLS handshake: the server begins to listen to what comes."""
        link, server = sock.link, sock.link.ends[1]
        if not server.is_up:
            link.cut(silently=False)
            return
        link.client_certificate = client_certificate
        talk = SimulatedSession(server, Socket(self, link, is_server=True))
        self.tasks.spawn(f"{server.name}-session", talk.serve, server)

    # -- trouble ---------------------------------------------------------------------------------------------------

    def is_parted(self) -> bool:
        return self.tasks.now < self.parted_until

    def part(self, seconds: float) -> None:
        self.parted_until = max(self.parted_until, self.tasks.now + seconds)

    def delay_seconds(self, link: Link) -> float | None:
        """Of a message that is about to be sent: what is sent while the systems are parted gets there once they are
        not. None: it gets lost, with its connection."""
        faults = self.faults
        seconds = LATENCY_SECONDS * faults.random.random() + max(0.0, self.parted_until - self.tasks.now)
        if faults.strikes("messages that took long", faults.clog):
            seconds += CLOG_SECONDS * faults.random.random()
        if not faults.strikes("connections that broke", faults.connection_loss):
            return seconds
        survives = faults.random.random() < faults.message_survives
        silently = faults.random.random() < faults.silent_loss
        if not survives:
            link.cut(silently=silently)
            return None
        # It is on its way when the connection breaks behind it, and may come when a newer one has been made.
        self.tasks.spawn("cutter", lambda: link.cut(silently=silently), owner=self)
        return seconds + (LATE_SECONDS * faults.random.random() if faults.random.random() < 0.5 else 0.0)

    def lost(self, machine: Machine) -> None:
        """A machine has lost power: who was connected sees an end, or silence."""
        for link in self.links:
            if machine in link.ends:
                link.cut(silently=self.faults.random.random() < self.faults.silent_loss)
        self.links = [link for link in self.links if machine not in link.ends]

    def heal(self) -> None:
        self.parted_until = 0.0
