"""Puts a system together, runs it, and takes it apart. The only module that knows all floors.

take the state directory, with every check ─► database ─► open the pools ─► identity (first start: pool A, user) ─► keys
    ─► begin to use the pools ─► replication ─► NBD ─► schedules ─► API and control socket ─► ready ─► … ─► the same in
    reverse

Nothing is written, punched or discarded before every check of the directory, its database and all its data files has
passed; the database is migrated first, and pools change nothing before the page tables of all of them were read.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue

import structlog

from offsite.access import lost_keys
from offsite.access.certificates import Authority
from offsite.access.initiator_certificates import InitiatorCertificates
from offsite.access.maps import Maps
from offsite.admission import Admission
from offsite.clock import SystemClock
from offsite.errors import InUse, OffsiteError
from offsite.events import (
    KEYS_MADE_ANEW,
    POOL_REMAINS,
    RESERVE_GIVEN_UP,
    RESERVE_KEPT_AGAIN,
    SYSTEM_STARTED,
    SYSTEM_STOPPED,
    EventKind,
)
from offsite.interfaces import control_socket
from offsite.interfaces.cli.defaults import API_PORT, LISTEN, NBD_PORT, PEER_PORT
from offsite.interfaces.http import serving
from offsite.management.accounts.sessions import Sessions
from offsite.management.accounts.users import FIRST_USER, Users
from offsite.management.certificate_watch import CertificateWatch, certificates_in_use
from offsite.management.events.event_log import EventLog
from offsite.management.images import import_copy
from offsite.management.needs import needs_of_all_floors
from offsite.management.notices.notices import Notices
from offsite.management.schedules.roster import Roster
from offsite.management.schedules.schedules import Schedules
from offsite.management.schedules.tasks import Tasks
from offsite.management.startup import first_password, first_start, state_directory
from offsite.management.startup.state_directory import StateDirectory
from offsite.management.system import System
from offsite.management.task_runner.task_work import scheduler_of
from offsite.names import NAME_BYTES_MAX, check_name
from offsite.pools import pool_rows, registry
from offsite.pools.groups import Groups
from offsite.pools.needs import Needs
from offsite.pools.protocol import Pool
from offsite.replication.link.identity import SystemIdentity
from offsite.replication.runs.hooks import HookDirectory
from offsite.replication.service import Replication
from offsite.return_codes import ReturnCode
from offsite.store.database import Database
from offsite.store.free_space import mount_point
from offsite.store.settings import MAXIMUM_NBD_CONNECTIONS, Settings
from offsite.targets.common.counters import Counters
from offsite.targets.common.grants import Grants
from offsite.targets.common.listeners import Address
from offsite.targets.common.server import TargetServer
from offsite.targets.nbd.connection import NbdConnection
from offsite.ticker import Ticker

NBD_SOCKET = "nbd.sock"
HOOKS_DIRECTORY = "hooks"
START_SECONDS = 30.0
STOP_SECONDS = 5.0  # for each part
LOOK_SECONDS = 0.5  # whether it is told to stop
SWITCH_INTERVAL_SECONDS = 0.0005  # hosts' requests should not wait 5 ms for their turn behind a run

_log = structlog.get_logger("offsite.daemon")


@dataclass(frozen=True, slots=True)
class StartOptions:
    """What `offsite serve` takes. A port of 0 stands for any free one."""

    state_directory: Path
    name: str | None = None
    listen: str = LISTEN
    api_port: int = API_PORT
    nbd_port: int = NBD_PORT
    peer_port: int = PEER_PORT
    pool_bytes: int | None = None
    password: str | None = None  # of the first user, at the first start
    new_keys: bool = False  # those that were lost are made anew


class StartStopped(OffsiteError):
    """The system was told to stop while it was starting."""

    code = ReturnCode.START_STOPPED


class Daemon:
    """A system. `start` it once, then `stop` it; `stop` also takes apart what a failed start has left."""

    def __init__(self, settings: StartOptions, announce: Callable[[str], None] | None) -> None:
        """`announce` shows to an operator at a terminal what nobody else may see, the first password; None: no
        terminal is there."""
        self._settings = settings
        self._announce = announce
        self._parts = ExitStack()
        # Not an Event: a handler that sets one while the thread that it interrupts holds its lock waits for ever.
        self._told_to_stop: SimpleQueue[None] = SimpleQueue()
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
        self._told_to_stop.put(None)

    def wait(self) -> None:
        """Until told to stop."""
        while not self._is_told_to_stop():
            # A signal that comes just before the kernel puts this thread to sleep does not wake it, and Python calls
            # no handler while it sleeps: so it never sleeps long.
            with contextlib.suppress(Empty):
                self._told_to_stop.put(self._told_to_stop.get(timeout=LOOK_SECONDS))  # for whoever else looks

    def stop(self) -> None:
        """Ends everything, with what was acknowledged flushed."""
        if self.system is not None:
            self.system.stopping.set()
            self.system.replication.stop_hooks()
        self._parts.close()

    def _start(self) -> None:
        sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
        clock = SystemClock()
        directory = state_directory.take(self._settings.state_directory, keys_may_be_missing=self._settings.new_keys)
        self._parts.callback(directory.release)
        database = Database(directory.database_path)
        self._parts.callback(database.close)
        events = EventLog(database, clock)
        self._parts.callback(events.stop, STOP_SECONDS)
        pools: dict[str, Pool] = {}
        self._parts.callback(_close_pools, pools)
        self._open_pools(database, directory, pools, events)
        users = Users(database, events.report, clock)
        identity, authority = self._identity(database, users, directory, events)
        settings = Settings(database)
        notices = Notices(directory.keys_path, identity.name, settings, events.report, clock)
        self._parts.callback(notices.stop, STOP_SECONDS)
        events.listen(notices.tell)
        self._check_stop()
        maps = Maps(database)
        self._parts.callback(_close_pools, pools)  # as long as notices of what goes wrong there can be sent
        self._begin_pools(database, directory, pools, events)
        directory.sign()
        database.reserve.tell = lambda is_kept: events.report(*reserve_event(directory.path, is_kept))
        database.reserve.keep()
        self._check_stop()
        needs = needs_of_all_floors(database)
        replication = self._start_replication(database, pools, needs, authority, identity, users, events)
        certificates = InitiatorCertificates(database)
        grants = Grants(pools, maps, lambda image: not replication.is_secondary(image.id))
        counters = Counters()
        targets = (self._nbd(directory.path, grants, authority, settings, events, certificates, counters),)
        self._start_targets(targets)
        self._check_stop()
        roster = Roster(database, events.report)
        schedules = Schedules(database, settings, roster, events.report, clock)
        self.system = System(
            uuid=identity.uuid,
            name=identity.name,
            state_directory=directory.path,
            database=database,
            pools=pools,
            groups=Groups(database),
            needs=needs,
            maps=maps,
            authority=authority,
            certificates=certificates,
            replication=replication,
            targets=targets,
            counters=counters,
            users=users,
            sessions=Sessions(clock, users.current),
            events=events,
            notices=notices,
            settings=settings,
            tasks=Tasks(database, roster, events.report),
            schedules=schedules,
            roster=roster,
            clock=clock,
            started_at=clock.now(),
            addresses=self.addresses,
        )
        self._start_schedules(self.system)
        self._start_certificate_watch(self.system)
        self._serve_http(self.system, authority, directory.path)
        events.report(SYSTEM_STARTED, f"System {identity.name} was started.")
        self._parts.callback(events.report, SYSTEM_STOPPED, f"System {identity.name} is stopping.")

    def _identity(
        self, database: Database, users: Users, directory: StateDirectory, events: EventLog
    ) -> tuple[first_start.Identity, Authority]:
        """Who the system is. At the first start the keys are made before it is written down that it is one."""
        settings = self._settings
        known = first_start.identity(database, settings.name)
        lost: tuple[str, ...] = ()
        if known is not None and settings.new_keys:
            lost = lost_keys.set_aside(directory.keys_path)
        elif known is not None:
            state_directory.check_keys(directory.path)
        name = known.name if known else settings.name or socket.gethostname()[:NAME_BYTES_MAX]
        authority = Authority(directory.keys_path, check_name(name, "system name"), self._hosts())
        if lost:
            events.report(KEYS_MADE_ANEW, lost_keys.sentence(name, lost, authority.fingerprint))
        if known is not None:
            return known, authority
        if settings.password is not None or self._announce is not None:  # a first start that was cut may have left one
            first_password.forget(directory.path, FIRST_USER)
        made = first_start.start_first(
            database, users, SystemClock(), name, settings.pool_bytes, settings.password, self._tell_password
        )
        return made, authority

    def _tell_password(self, password: str) -> None:
        """To whoever is at the terminal; else no output gets it, for others can read where that goes."""
        if self._announce is not None:
            self._announce(f"User {FIRST_USER} has the password {password} (it is not shown again).")
            return
        path = first_password.keep(self._settings.state_directory, password)
        _log.warning(
            f"the password of user {FIRST_USER} is in this file, which only its owner can read; `offsite set password "
            f"{FIRST_USER}` changes it and removes the file",
            file=str(path),
        )

    def _hosts(self) -> list[str]:
        """Under which names and addresses clients may know the system."""
        return [self._settings.listen, socket.gethostname()]

    def _open_pools(
        self, database: Database, directory: StateDirectory, pools: dict[str, Pool], events: EventLog
    ) -> None:
        """Those that are not open yet. Changes nothing."""
        with database.read() as connection:
            names = [name for name, _ in pool_rows.all_pools(connection)]
        for name in names:
            self._check_stop()
            if name not in pools:
                pools[name] = registry.open_pool(database, name, events.report, directory.attached.pop(name, None))

    def _begin_pools(
        self, database: Database, directory: StateDirectory, pools: dict[str, Pool], events: EventLog
    ) -> None:
        self._open_pools(database, directory, pools, events)  # the one that a first start has just made
        for problem in registry.clear_remains(database):
            events.report(POOL_REMAINS, f"{problem}.")
        for pool in pools.values():
            self._check_stop()
            pool.begin()
            import_copy.delete_leftovers(pool)

    def _start_replication(
        self,
        database: Database,
        pools: dict[str, Pool],
        needs: Needs,
        authority: Authority,
        identity: first_start.Identity,
        users: Users,
        events: EventLog,
    ) -> Replication:
        listen = (self._settings.listen, self._settings.peer_port)
        system = SystemIdentity(identity.uuid, identity.name)
        hooks = HookDirectory(database.path.parent / HOOKS_DIRECTORY)
        replication = Replication(
            database, pools, needs, authority, system, listen, users.may_manage, hooks, events.report
        )
        try:
            replication.start()
        except OSError as error:
            where = _joined(*listen)
            raise InUse(f"replication cannot listen on {where}: {error.strerror or error}") from error
        self._parts.callback(replication.stop, STOP_SECONDS)
        self.addresses["peer"] = _joined(self._settings.listen, replication.port)
        return replication

    def _start_targets(self, targets: Sequence[TargetServer]) -> None:
        for target in targets:
            target.start()
            self._parts.callback(target.stop, STOP_SECONDS)
            for host, port in [each for each in target.addresses() if not isinstance(each, Path)][:1]:
                self.addresses[target.protocol] = _joined(host, port)

    def _nbd(
        self,
        directory: Path,
        grants: Grants,
        authority: Authority,
        settings: Settings,
        events: EventLog,
        certificates: InitiatorCertificates,
        counters: Counters,
    ) -> TargetServer:
        maximum = partial(settings.get, MAXIMUM_NBD_CONNECTIONS)
        return TargetServer(
            NbdConnection,
            self._nbd_addresses(directory),
            grants,
            authority,
            counters=counters,
            admission=Admission("over NBD", maximum, events.report, SystemClock()),
            certificates=certificates,
        )

    def _nbd_addresses(self, directory: Path) -> list[Address]:
        addresses: list[Address] = [(self._settings.listen, self._settings.nbd_port)]
        path = directory / NBD_SOCKET
        if len(os.fsencode(path)) <= control_socket.PATH_BYTES_MAX:
            addresses.append(path)
        else:
            _log.warning("NBD does not listen on its Unix socket: the path is too long", path=str(path))
        return addresses

    def _start_schedules(self, system: System) -> None:
        scheduler = scheduler_of(system)
        self._parts.callback(scheduler.stop, STOP_SECONDS)
        ticker = Ticker("scheduler", scheduler.step, system.clock)
        system.schedules.wake = ticker.wake
        ticker.start()
        self._parts.callback(ticker.stop, STOP_SECONDS)

    def _start_certificate_watch(self, system: System) -> None:
        watch = CertificateWatch(lambda: certificates_in_use(system), system.events.report, system.clock)
        ticker = Ticker("certificates", watch.step, system.clock)
        ticker.start()
        self._parts.callback(ticker.stop, STOP_SECONDS)

    def _serve_http(self, system: System, authority: Authority, directory: Path) -> None:
        api = serving.listen(self._settings.listen, self._settings.api_port)
        self._parts.callback(api.close)
        self.addresses["api"] = f"https://{_joined(*api.getsockname()[:2])}"
        path = directory / control_socket.NAME
        socket_of_control = control_socket.listen(path)
        self._parts.callback(path.unlink, missing_ok=True)
        server = serving.server_of(system, authority, api, socket_of_control)
        self._parts.callback(server.stop, 2 * STOP_SECONDS)
        server.start(START_SECONDS)

    def _check_stop(self) -> None:
        if self._is_told_to_stop():
            raise StartStopped("stopped while starting")

    def _is_told_to_stop(self) -> bool:
        return not self._told_to_stop.empty()


def reserve_event(directory: Path, is_kept: bool) -> tuple[EventKind, str]:
    """What becomes of the space that is kept for what frees space."""
    if is_kept:
        return RESERVE_KEPT_AGAIN, f"Space is reserved again on the file system at {mount_point(directory)}."
    return RESERVE_GIVEN_UP, (
        f"The file system at {mount_point(directory)} is full: the space reserved there was released, so that the "
        "database can still be written."
    )


def _close_pools(pools: dict[str, Pool]) -> None:
    while pools:
        _, pool = pools.popitem()
        pool.close()


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
