"""`offsite serve`: a system as a process, from its command line to its end.

SIGTERM or SIGINT ──► clean stop ──(30 s)──► end by force, and the next start is one after a crash
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
from pathlib import Path

import structlog

from offsite.daemon import Daemon, StartOptions, StartStopped
from offsite.interfaces.cli import declared
from offsite.interfaces.cli.defaults import API_PORT, LISTEN, NBD_PORT, PEER_PORT
from offsite.interfaces.cli.options import CommandLine
from offsite.interfaces.service import logs, readiness
from offsite.management.command_table.parser import parse

STOP_ALL_SECONDS = 30.0
PASSWORD_VARIABLE = "OFFSITE_MANAGE_PASSWORD"

_log = structlog.get_logger("offsite.serve")


def serve(line: CommandLine) -> int:
    """`offsite serve`: runs a system in the foreground until SIGTERM or SIGINT; returns the exit status."""
    settings = settings_of(line, os.environ.pop(PASSWORD_VARIABLE, None))
    logs.configure()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a system has many connections and images open
    at_terminal = sys.stdout.isatty()
    daemon = Daemon(settings, announce=(lambda text: print(text, flush=True)) if at_terminal else None)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: daemon.tell_to_stop())
    try:
        daemon.start()
    except StartStopped:
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
    _log.error("the system did not stop in time and is killed", seconds=STOP_ALL_SECONDS)
    os._exit(1)


def _ready(daemon: Daemon) -> str:
    assert daemon.system is not None
    at = daemon.addresses
    return (
        f"System {daemon.system.name} is ready: API {at['api']}, NBD {at['nbd']}, peers {at['peer']}, "
        f"state {daemon.system.state_directory}"
    )


def settings_of(line: CommandLine, password: str | None) -> StartOptions:
    """Raises UsageError."""
    arguments = parse(declared.commands(), line.words).arguments
    options = line.options
    return StartOptions(
        state_directory=Path(arguments["directory"]),
        name=options.get("name"),
        listen=options.get("listen", LISTEN),
        api_port=options.get("api-port", API_PORT),
        nbd_port=options.get("nbd-port", NBD_PORT),
        peer_port=options.get("peer-port", PEER_PORT),
        pool_bytes=options.get("pool-size"),
        password=password,
        new_keys="new-keys" in options,
    )
