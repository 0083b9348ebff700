"""`offsite serve` as its operators and service managers meet it: starts, refusals, crashes and stops."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from offsite import daemon
from offsite.daemon import Daemon, StartOptions, StartStopped
from offsite.errors import BadParameter, InUse, StateDirectoryError
from offsite.interfaces.cli import client
from offsite.interfaces.cli.options import parse_options
from offsite.interfaces.control_socket import short
from offsite.interfaces.encoding.reply_json import for_programs
from offsite.management.accounts.users import Users
from offsite.management.command_table.parser import UsageError
from offsite.management.command_table.reply import Reply
from offsite.management.startup import first_password
from offsite.serve import settings_of
from tests.interfaces.live_system import PASSWORD, LiveSystem, offsite, quickly, start, stop

MIB = 1 << 20
SMALL = ["--pool-size", "64MiB"]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a system named London with a volume and a snapshot, after a clean stop."""
    state = tmp_path_factory.mktemp("template") / "state"
    with here(state, name="London"):
        ask(state, "create", "volume", "pool", "A", "size", "1MiB", "Sales")
        ask(state, "create", "snapshots", "volumes", "Sales", "Monday")
    return state


@pytest.fixture
def place(template: Path, tmp_path: Path) -> Path:
    shutil.copytree(template, tmp_path / "state")
    return tmp_path


@pytest.fixture
def system(place: Path) -> Iterator[LiveSystem]:
    """In a process of its own."""
    found = start(place)
    yield found
    if found.process.poll() is None:
        stop(found)


@contextmanager
def here(state: Path, announced: list[str] | None = None, **settings: Any) -> Iterator[Daemon]:
    """A system in this process, which is sooner there."""
    found = Daemon(settings_for(state, **settings), ([] if announced is None else announced).append)
    found.start()
    try:
        yield found
    finally:
        found.stop()


def settings_for(state: Path, **settings: Any) -> StartOptions:
    usual = {"api_port": 0, "nbd_port": 0, "peer_port": 0, "pool_bytes": 8 * MIB}
    return StartOptions(**({"state_directory": state} | usual | settings))


def ask(state: Path, *words: str) -> Any:
    reply = client.local(state).command(words, {}, asks=False)
    assert isinstance(reply, Reply)
    return for_programs(reply)


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def serve(state: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return offsite("serve", str(state), *options)


# -- starting -----------------------------------------------------------------------------------------------------


def test_the_first_start_tells_a_password_once_and_the_next_does_not(tmp_path: Path) -> None:
    announced: list[str] = []
    with here(tmp_path / "state", announced):
        pass
    assert not (tmp_path / "state" / "first-password").exists(), "who is at the terminal has seen it"
    with here(tmp_path / "state", announced) as system:
        (said,) = announced
        password = said.split("has the password ")[1].split(" ")[0]
        assert len(password) >= 16
        assert system.system is not None
        assert system.system.users.authenticate("manage", password, "here").name == "manage"


def test_hosts_certificates_are_looked_up_where_commands_revoke_them(place: Path) -> None:
    with here(place / "state") as running:
        assert running.system is not None
        (target,) = running.system.targets
        assert target._settings.certificates is running.system.certificates  # type: ignore[attr-defined]


def test_without_a_terminal_the_first_password_is_in_a_file_of_its_owner_until_it_is_changed(tmp_path: Path) -> None:
    """It was in the journal before, for everybody who may read that."""
    live = start(tmp_path, "--name", "London", "--pool-size", "64MiB", environment={})
    try:
        path = live.state / "first-password"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        password = path.read_text().rstrip("\n")
        assert len(password) >= 16
        assert password not in live.said + live.logged()
        assert str(path) in live.logged()
        there = {"OFFSITE_PASSWORD": password, "OFFSITE_NEW_PASSWORD": "another password", "HOME": str(tmp_path)}
        live.do("create", "user", "anna", environment=there)
        assert path.exists(), "it is not about her"
        live.do("set", "password", "anna", environment=there)
        assert path.exists()
        assert "first-password was removed" in live.do("set", "password", "manage", environment=there)
        assert not path.exists()
    finally:
        stop(live)


def test_a_first_password_that_cannot_be_put_in_its_file_makes_no_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would know it. The next start makes another."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    state = tmp_path / "state"
    with monkeypatch.context() as patched, pytest.raises(StateDirectoryError, match="first-password cannot be written"):
        patched.setattr(first_password, "write_atomically", full)
        Daemon(settings_for(state), None).start()
    found = Daemon(settings_for(state), None)
    found.start()
    try:
        password = (state / "first-password").read_text().strip()
        assert found.system is not None
        assert found.system.users.authenticate("manage", password, "here").name == "manage"
    finally:
        found.stop()


@pytest.mark.parametrize("by", ["terminal", "environment"])
def test_a_first_start_that_was_cut_leaves_no_file_with_a_password_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """The next start has the password from elsewhere, and the file would name another."""

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    state = tmp_path / "state"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Users, "create", cut)
        Daemon(settings_for(state), None).start()
    assert (state / "first-password").exists()
    said: list[str] = []
    settings = settings_for(state)
    if by == "environment":
        settings = replace(settings, password=PASSWORD)
    found = Daemon(settings, said.append if by == "terminal" else None)
    found.start()
    try:
        assert not (state / "first-password").exists()
        assert bool(said) is (by == "terminal")
    finally:
        found.stop()


def test_a_password_from_the_environment_is_neither_printed_logged_nor_passed_on(tmp_path: Path) -> None:
    system = start(tmp_path, *SMALL)
    assert PASSWORD not in system.said + system.logged()
    assert "User manage" not in system.said
    environment = Path(f"/proc/{system.process.pid}/environ").read_text()
    assert environment.count(PASSWORD) == 1, "what the kernel noted at the start cannot be changed"
    done = quickly(
        *("--system", system.url, *system.fingerprint, "show", "users"),
        environment={"OFFSITE_PASSWORD": PASSWORD, "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert stop(system) == 0


def test_what_was_made_is_there_after_the_next_start_under_whatever_name(place: Path) -> None:
    with here(place / "state", name="Paris"):
        volumes = ask(place / "state", "show", "volumes")["volumes"]
        kinds = [(each["volume-name"], each["volume-type"]) for each in volumes]
        assert kinds == [("Monday", "snapshot"), ("Sales", "base")]
        assert ask(place / "state", "show", "system")["system"][0]["system-name"] == "Paris"


def test_the_service_manager_is_told_when_it_is_ready_and_when_it_stops(place: Path, short_directory: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(20)
        manager.bind(str(short_directory / "notify"))
        system = start(place, environment={"NOTIFY_SOCKET": str(short_directory / "notify")})
        assert manager.recv(100) == b"READY=1"
        assert stop(system) == 0
        assert manager.recv(100) == b"STOPPING=1"


def test_a_state_directory_with_a_long_path_does_without_the_nbd_socket(tmp_path: Path, template: Path) -> None:
    place = tmp_path / ("d" * 100)
    shutil.copytree(template, place / "state")
    with structlog.testing.capture_logs() as lines, here(place / "state"):
        assert any("NBD does not listen on its Unix socket" in line["event"] for line in lines)
        assert ask(place / "state", "show", "pools")["pools"]


# -- refusals -----------------------------------------------------------------------------------------------------


def test_a_second_serve_on_the_same_directory_is_refused_and_the_first_goes_on(system: LiveSystem) -> None:
    done = serve(system.state)
    assert done.returncode == 1
    assert f"is in use by process {system.process.pid}" in done.stderr
    assert system.offsite("show", "pools").returncode == 0


@pytest.mark.parametrize("port", ["api_port", "nbd_port", "peer_port"])
def test_a_port_that_is_taken_is_named_and_the_system_does_not_start(place: Path, port: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        number = other.getsockname()[1]
        with (
            pytest.raises(InUse, match=f"127.0.0.1:{number}: Address already in use"),
            here(place / "state", **{port: number}),
        ):
            pass
    with here(place / "state"):
        pass


@pytest.mark.parametrize("damage", ["foreign", "state.db", "pool-A.data", "keys/system-key.pem", "keys"])
def test_a_foreign_or_damaged_directory_is_refused_and_not_a_byte_changes(place: Path, damage: str) -> None:
    state = place / "state"
    if damage == "foreign":
        shutil.rmtree(state)
        state.mkdir()
        (state / "thesis.tex").write_text("years of work")
    elif damage == "keys":
        shutil.rmtree(state / "keys")
    else:
        os.truncate(state / damage, (state / damage).stat().st_size // 2)
    before = contents(state)
    done = serve(state, "--api-port", "0", "--nbd-port", "0", "--peer-port", "0")
    assert (done.returncode, done.stdout) == (1, "")
    assert str(state) in done.stderr
    assert contents(state) == before


def test_keys_that_were_lost_are_made_anew_only_when_that_is_asked_for(place: Path) -> None:
    state = place / "state"
    before = {path.name: path.read_bytes() for path in (state / "keys").iterdir()}
    (state / "keys" / "system-key.pem").unlink()
    with pytest.raises(StateDirectoryError, match="start once with --new-keys"), here(state):
        pass
    for _ in range(2):  # the second time nothing is lost, and nothing is made
        with here(state, new_keys=True):
            told = [each for each in ask(state, "show", "events")["events"] if "created again" in each["message"]]
            assert len(told) == 1
    after = {path.name: path.read_bytes() for path in (state / "keys").iterdir()}
    assert after["ca.pem"] == before["ca.pem"]
    assert after["system.pem"] != before["system.pem"] == after["system.pem.old"]
    assert settings_of(parse_options(["serve", "x", "--new-keys"]), None).new_keys
    assert not settings_of(parse_options(["serve", "x"]), None).new_keys


@pytest.mark.parametrize(
    ("words", "error", "rule"),
    [
        (["serve"], UsageError, "serve: directory is missing; syntax: serve <state directory>"),
        (["serve", "x", "y"], UsageError, "serve: unexpected 'y' after 'x'"),
        (
            ["serve", "x", "--api-port", "65536"],
            BadParameter,
            "--api-port: '65536' is not a whole number from 0 to 65535",
        ),
        (["serve", "x", "--nbd-port", "http"], BadParameter, "'http'"),
        (["serve", "x", "--pool-size", "lots"], BadParameter, "'lots'"),
    ],
)
def test_a_bad_option_is_named(words: list[str], error: type[Exception], rule: str) -> None:
    with pytest.raises(error) as refusal:
        settings_of(parse_options(words), None)
    assert rule in str(refusal.value)


def test_without_options_the_address_and_ports_are_the_fixed_ones() -> None:
    settings = settings_of(parse_options(["serve", "x"]), None)
    assert (settings.listen, settings.api_port, settings.nbd_port, settings.peer_port) == (
        "127.0.0.1",
        8443,
        10809,
        7443,
    )


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"name": "a,b"}, BadParameter),
        ({"password": "short"}, BadParameter),
        ({"pool_bytes": 1}, BadParameter),
        ({"listen": "192.0.2.1"}, InUse),
    ],
)
def test_a_first_start_that_fails_leaves_nothing_running_and_can_be_repeated(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception]
) -> None:
    threads = set(_threads())
    with pytest.raises(error), here(tmp_path / "state", **changes):
        pass
    deadline = time.monotonic() + 10
    while set(_threads()) - threads:
        assert time.monotonic() < deadline, set(_threads()) - threads
        time.sleep(0.02)
    with here(tmp_path / "state"):
        pass


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


# -- stopping -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly_and_in_time(system: LiveSystem, number: int) -> None:
    begun = time.monotonic()
    assert stop(system, number) == 0
    assert time.monotonic() - begun < 10
    names = {path.name for path in system.state.iterdir()}
    assert names == {"keys", "lock", "pool-A.data", "reserve", "state.db"}, "no socket and no journal is left"
    assert "is stopping" in system.logged()


def test_connections_that_stay_open_do_not_hold_up_a_stop(place: Path) -> None:
    """Not even one that has not begun its TLS handshake: no part waits until it gives up on its threads (5 s)."""
    with here(place / "state") as system, ExitStack() as connections:
        for place_name in ("nbd", "peer", "api"):
            host, _, port = system.addresses[place_name].removeprefix("https://").partition(":")
            connections.enter_context(socket.create_connection((host, int(port))))
        control = connections.enter_context(socket.socket(socket.AF_UNIX))
        with short(place / "state" / "control.sock") as path:
            control.connect(path)
        begun = time.monotonic()
        system.stop()
        assert time.monotonic() - begun < daemon.STOP_SECONDS


def test_a_stop_is_an_event_that_is_kept(place: Path) -> None:
    with here(place / "state"):
        messages = [each["message"] for each in ask(place / "state", "show", "events", "last", "2")["events"]]
        assert messages == ["System London was started.", "System London is stopping."]


@pytest.mark.slow
@pytest.mark.parametrize("delay_seconds", [0.4, 0.8, 1.2])
def test_a_signal_during_the_start_stops_it_too(tmp_path: Path, delay_seconds: float) -> None:
    """At whatever step it comes; and what the first start has made by then is no obstacle to the next."""
    log = tmp_path / "log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "offsite", "serve", str(tmp_path / "state"), *SMALL,
             "--api-port", "0", "--nbd-port", "0", "--peer-port", "0"],
            stdout=subprocess.DEVNULL, stderr=errors,
        )  # fmt: skip
    time.sleep(delay_seconds)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) in (0, -signal.SIGTERM), log.read_text()
    assert "Traceback" not in log.read_text()
    with here(tmp_path / "state"):
        pass


def test_told_to_stop_between_two_steps_it_starts_no_further(tmp_path: Path) -> None:
    told = Daemon(settings_for(tmp_path / "state"), print)
    told.tell_to_stop()
    with pytest.raises(StartStopped):
        told.start()
    assert told.system is None


def test_what_hangs_is_ended_by_force(tmp_path: Path) -> None:
    program = (
        "import sys, time; from offsite import serve; from offsite.interfaces.cli.options import parse_options;"
        "serve.STOP_ALL_SECONDS = 0.5; serve.Daemon.stop = lambda self: time.sleep(60);"
        "sys.exit(serve.serve(parse_options(sys.argv[1:])))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "serve", str(tmp_path / "state"), *SMALL,
         "--api-port", "0", "--nbd-port", "0", "--peer-port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    while "is ready" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "did not stop in time" in errors


def test_after_a_kill_everything_is_there_and_sockets_that_are_left_are_replaced(system: LiveSystem) -> None:
    system.do("create", "volume", "pool", "A", "size", "1MiB", "Late")
    system.process.kill()
    system.process.wait()
    assert (system.state / "control.sock").exists()
    done = system.offsite("show", "volumes")
    assert (done.returncode, "no system is running" in done.stderr) == (1, True)
    with here(system.state):
        names = [each["volume-name"] for each in ask(system.state, "show", "volumes")["volumes"]]
        assert names == ["Late", "Monday", "Sales"]


def test_hosts_get_their_turn_soon() -> None:
    """A thread that computes may keep others waiting for this long."""
    assert daemon.SWITCH_INTERVAL_SECONDS <= 0.001


def test_a_signal_at_the_very_moment_of_waiting_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    """A handler runs in the main thread, between any two steps of what that does: also inside `wait`.

    In a process of its own: the timer is the one with which a test that takes too long is ended.
    """
    done = subprocess.run(
        [sys.executable, "-c", SIGNALS_WHILE_WAITING, str(tmp_path / "state")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "all came\n"), done.stderr


SIGNALS_WHILE_WAITING = """
import signal, sys
from pathlib import Path
from offsite.daemon import Daemon, Settings

for delay_microseconds in range(1, 2000, 10):
    daemon = Daemon(Settings(Path(sys.argv[1])), lambda _told: None)
    signal.signal(signal.SIGALRM, lambda *_: daemon.tell_to_stop())
    signal.setitimer(signal.ITIMER_REAL, delay_microseconds * 1e-6)
    daemon.wait()
print("all came")
"""
