"""Puts a system together, runs it, and takes it apart. The only module that knows all floors.

take the state directory ─► database ─► identity (first start: pool A, user) ─► keys ─► pools ─► replication
    ─► NBD ─► API and control socket ─► ready ─► … ─► the same in reverse
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy import select

from offsite.access.certificates import Authority
from offsite.access.maps import Maps
from offsite.clock import SystemClock
from offsite.errors import BadParameter, InUse, OffsiteError
from offsite.events import SYSTEM_STARTED, SYSTEM_STOPPED
from offsite.interfaces import control_socket, logs, readiness
from offsite.interfaces.api import local_application, remote_application
from offsite.interfaces.command_line import only_words
from offsite.interfaces.http_protocols import ControlProtocol, tls
from offsite.interfaces.http_server import HttpServer, Listener
from offsite.interfaces.options import CommandLine
from offsite.management import first_start, state_directory, transfer
from offsite.management.event_log import EventLog
from offsite.management.sessions import Sessions
from offsite.management.state_directory import StateDirectory
from offsite.management.system import System
from offsite.management.users import FIRST_USER, Users
from offsite.names import NAME_BYTES_MAX, check_name
from offsite.pools.local import LocalPool
from offsite.replication.identity import SystemIdentity
from offsite.replication.service import Replication
from offsite.store.database import Database
from offsite.store.tables.pools import pools as pool_table
from offsite.targets.nbd.exports import Exports
from offsite.targets.nbd.server import Address, NbdServer
from offsite.units import parse_size

API_PORT, NBD_PORT, PEER_PORT = 8443, 10809, 7443
NBD_SOCKET = "nbd.sock"
START_SECONDS = 30.0
STOP_SECONDS = 5.0  # for each part
STOP_ALL_SECONDS = 30.0  # then the process ends whatever hangs, and the next start is one after a crash
SWITCH_INTERVAL_SECONDS = 0.0005  # hosts' requests should not wait 5 ms for their turn behind a run
PASSWORD_VARIABLE = "OFFSITE_MANAGE_PASSWORD"

_log = structlog.get_logger("offsite.daemon")


@dataclass(frozen=True, slots=True)
class Settings:
    """What `offsite serve` takes. A port of 0 stands for any free one."""

    state_directory: Path
    name: str | None = None
    listen: str = "127.0.0.1"
    api_port: int = API_PORT
    nbd_port: int = NBD_PORT
    peer_port: int = PEER_PORT
    pool_bytes: int | None = None
    password: str | None = None  # of the first user, at the first start


class Stopped(OffsiteError):
    """The system was told to stop while it was starting."""


class Daemon:
    """A system. `start` it once, then `stop` it; `stop` also takes apart what a failed start has left."""

    def __init__(self, settings: Settings, announce: Callable[[str], None]) -> None:
        """`announce` tells the operator what is not for the logs: the first password."""
        self._settings = settings
        self._announce = announce
        self._parts = ExitStack()
        self._told_to_stop = threading.Event()
        self.system: System | None = None
        self.addresses: dict[str, str] = {}

    def start(self) -> None:
        """Raises OffsiteError for what is wrong with the directory, an address, or a port; then nothing runs."""
        try:
            self._start()
        except BaseException:
            self._parts.close()
            raise

    def tell_to_stop(self) -> None:
        """From a signal handler: ends `wait`, and a start that is under way."""
        self._told_to_stop.set()

    def wait(self) -> None:
        """Until told to stop."""
        self._told_to_stop.wait()

    def stop(self) -> None:
        """Ends everything, with what was acknowledged flushed."""
        if self.system is not None:
            self.system.stopping.set()
        self._parts.close()

    def _start(self) -> None:
        sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
        settings, clock = self._settings, SystemClock()
        directory = state_directory.take(settings.state_directory)
        self._parts.callback(directory.release)
        database = Database(directory.database_path)
        self._parts.callback(database.close)
        events = EventLog(database, clock)
        self._parts.callback(events.stop, STOP_SECONDS)
        users = Users(database, events.report, clock)
        identity, authority = self._identity(database, users, directory)
        self._check_stop()
        maps = Maps(database)
        pools = self._load_pools(database, events)
        directory.sign()
        replication = Replication(
            database,
            pools,
            authority,
            SystemIdentity(identity.uuid, identity.name),
            (settings.listen, settings.peer_port),
            users.may_manage,
            events.report,
            clock,
        )
        self._check_stop()
        try:
            replication.start()
        except OSError as error:
            where = _joined(settings.listen, settings.peer_port)
            raise InUse(f"replication cannot listen on {where}: {error.strerror or error}") from error
        self._parts.callback(replication.stop, STOP_SECONDS)
        exports = Exports(pools, maps, lambda image: not replication.is_secondary(image.id))
        nbd = NbdServer(self._nbd_addresses(directory.path), exports, authority)
        nbd.start()
        self._parts.callback(nbd.stop, STOP_SECONDS)

        self.system = System(
            uuid=identity.uuid,
            name=identity.name,
            state_directory=directory.path,
            database=database,
            pools=pools,
            maps=maps,
            authority=authority,
            replication=replication,
            targets=(nbd,),
            users=users,
            sessions=Sessions(clock),
            events=events,
            clock=clock,
            started_at=clock.now(),
            addresses=self.addresses,
        )
        self._check_stop()
        self._serve_http(self.system, authority, directory.path)
        tcp = [each for each in nbd.addresses() if not isinstance(each, Path)]
        self.addresses["nbd"] = _joined(*tcp[0])
        self.addresses["peer"] = _joined(settings.listen, replication.port)
        events.report(SYSTEM_STARTED, f"System {identity.name} was started.")
        self._parts.callback(events.report, SYSTEM_STOPPED, f"System {identity.name} is being stopped.")

    def _identity(
        self, database: Database, users: Users, directory: StateDirectory
    ) -> tuple[first_start.Identity, Authority]:
        """Who the system is. At the first start the keys are made before it is written down that it is one."""
        settings = self._settings
        known = first_start.identity(database, settings.name)
        if known is not None:
            state_directory.check_keys(directory.path)
        name = known.name if known else settings.name or socket.gethostname()[:NAME_BYTES_MAX]
        authority = Authority(directory.keys_path, check_name(name, "system name"), self._hosts())
        if known is not None:
            return known, authority
        made, password = first_start.start_first(
            database, users, SystemClock(), name, settings.pool_bytes, settings.password
        )
        if settings.password is None:
            self._announce(f"User {FIRST_USER} has the password {password} (it is not shown again).")
        return made, authority

    def _hosts(self) -> list[str]:
        """Under which names and addresses clients may know the system."""
        return [self._settings.listen, socket.gethostname()]

    def _load_pools(self, database: Database, events: EventLog) -> dict[str, LocalPool]:
        with database.read() as connection:
            names = list(connection.execute(select(pool_table.c.name)).scalars())
        pools: dict[str, LocalPool] = {}
        self._parts.callback(_close_pools, pools)
        for name in names:
            self._check_stop()
            pools[name] = LocalPool.load(database, name, events.report)
            transfer.delete_leftovers(pools[name])
        return pools

    def _nbd_addresses(self, directory: Path) -> list[Address]:
        addresses: list[Address] = [(self._settings.listen, self._settings.nbd_port)]
        path = directory / NBD_SOCKET
        if len(os.fsencode(path)) <= control_socket.PATH_BYTES_MAX:
            addresses.append(path)
        else:
            _log.warning("NBD has no Unix socket: its path is too long", path=str(path))
        return addresses

    def _serve_http(self, system: System, authority: Authority, directory: Path) -> None:
        api = _listen(self._settings.listen, self._settings.api_port)
        self._parts.callback(api.close)
        self.addresses["api"] = f"https://{_joined(*api.getsockname()[:2])}"
        path = directory / control_socket.NAME
        control = control_socket.listen(path)
        self._parts.callback(path.unlink, missing_ok=True)
        server = HttpServer(
            [
                Listener(api, tls(_tls_context(authority)), remote_application(system)),
                Listener(control, ControlProtocol, local_application(system)),
            ]
        )
        self._parts.callback(server.stop, 2 * STOP_SECONDS)
        server.start(START_SECONDS)

    def _check_stop(self) -> None:
        if self._told_to_stop.is_set():
            raise Stopped("told to stop while starting")


def _close_pools(pools: dict[str, LocalPool]) -> None:
    for pool in pools.values():
        pool.close()


def _tls_context(authority: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(authority.certificate_path, authority.key_path)
    return context


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise InUse(f"the API cannot listen on {_joined(host, port)}: {error.strerror or error}") from error
    return listener


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def serve(line: CommandLine) -> int:
    """`offsite serve`: runs a system in the foreground until SIGTERM or SIGINT; returns the exit status."""
    settings = settings_of(line, os.environ.pop(PASSWORD_VARIABLE, None))
    logs.configure()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a system has many connections and images open
    daemon = Daemon(settings, announce=lambda text: print(text, flush=True))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: daemon.tell_to_stop())
    try:
        daemon.start()
    except Stopped:
        return 0
    assert daemon.system is not None
    print(_ready(daemon), flush=True)
    readiness.notify("READY=1")
    daemon.wait()
    readiness.notify("STOPPING=1")
    deadline = threading.Timer(STOP_ALL_SECONDS, _exit_at_once)
    deadline.daemon = True
    deadline.start()
    daemon.stop()
    deadline.cancel()
    return 0


def _exit_at_once() -> None:
    _log.error("the system did not stop in time; it ends as it is", seconds=STOP_ALL_SECONDS)
    os._exit(1)


def _ready(daemon: Daemon) -> str:
    assert daemon.system is not None
    at = daemon.addresses
    return (
        f"System {daemon.system.name} is ready: API {at['api']}, NBD {at['nbd']}, peers {at['peer']}, "
        f"state {daemon.system.state_directory}"
    )


def settings_of(line: CommandLine, password: str | None) -> Settings:
    """Raises BadParameter or OptionError for an option outside its rule."""
    (directory,) = only_words(line, "serve STATE_DIR", 1)
    options = line.options
    return Settings(
        state_directory=Path(directory),
        name=options.get("name"),
        listen=options.get("listen", "127.0.0.1"),
        api_port=_port(options.get("api-port"), API_PORT),
        nbd_port=_port(options.get("nbd-port"), NBD_PORT),
        peer_port=_port(options.get("peer-port"), PEER_PORT),
        pool_bytes=parse_size(options["pool-size"]) if "pool-size" in options else None,
        password=password,
    )


def _port(text: str | None, default: int) -> int:
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535):
        raise BadParameter(f"port {text[:16]!r} is not a number from 0 to 65535")
    return int(text)
