"""The command line as users and programs meet it: the real program against a real system."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from offsite import __version__
from offsite.errors import OffsiteError
from offsite.interfaces.cli import command_line
from offsite.interfaces.cli.options import CommandLine
from tests.interfaces.live_system import PASSWORD, LiveSystem, offsite, quickly
from tests.interfaces.terminal import at_a_terminal


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """Variables of a user who has used no system yet."""
    return {"HOME": str(tmp_path), "OFFSITE_PASSWORD": PASSWORD}


# -- exit status and output ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["show", "pools"], 0, ""),
        (["create", "volume", "pool", "Z", "size", "1GiB", "X"], 1, "offsite: pool 'Z' does not exist"),
        (["create", "volume", "pool", "A", "size", "200TiB", "X"], 1, "to 128 TiB"),
        (["delete", "volumes", "Nope"], 1, "offsite: volume 'Nope' does not exist"),
        (["create", "volume", "X"], 2, "pool is missing; syntax: create volume"),
        (["creat", "volume"], 2, "did you mean 'create'?"),
        (["show", "pools", "A", "B"], 2, "show pools: unexpected 'B' after 'A'"),
        (["--jsn", "show", "pools"], 2, "did you mean --json?"),
        (["show", "pools", "--wait"], 2, "--wait is an option of replicate"),
        (["import", "X"], 2, "import: file is missing"),
        (["create", "user", "berta"], 1, "set OFFSITE_NEW_PASSWORD"),
        (["create", "user", "password", "open sesame", "berta"], 1, "is not accepted among the words"),
    ],
)
def test_the_exit_status_tells_done_from_refused_from_wrong_usage(
    live: LiveSystem, words: list[str], status: int, sentence: str
) -> None:
    done = live.offsite(*words)
    assert done.returncode == status, done.stderr
    assert sentence in done.stderr
    assert bool(done.stdout) is (status == 0)
    assert len(done.stderr.splitlines()) == (0 if status == 0 else 1)


@pytest.mark.parametrize(("words", "status"), [(["show", "pools"], 0), (["replicate", "Nope"], 1), (["creat"], 2)])
def test_the_exit_status_is_that_of_the_process(live: LiveSystem, words: list[str], status: int) -> None:
    assert offsite("--state", str(live.state), *words).returncode == status


def test_json_is_json_for_what_was_done_and_for_what_was_refused(live: LiveSystem) -> None:
    pools = live.json("show", "pools")
    assert (pools["pools"][0]["name"], pools["status"][0]["return-code"]) == ("A", 0)
    done = live.offsite("--json", "delete", "volumes", "Nope")
    assert done.returncode == 1
    (status,) = json.loads(done.stdout)["status"]
    assert (status["response-type"], status["return-code"]) == ("Error", -10075)
    assert "'Nope'" in status["response"]
    assert "'Nope'" in done.stderr


def test_a_table_fits_a_pipe_and_its_reader_may_leave(live: LiveSystem) -> None:
    assert live.do("show", "limits").splitlines()[0].split() == ["Limit", "Value"]
    done = subprocess.run(
        f"{sys.executable} -m offsite --state {live.state} show limits | head -n 1",
        shell=True, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert (done.stdout.split(), done.stderr) == (["Limit", "Value"], "")


def test_a_full_disk_is_an_error(live: LiveSystem) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "offsite", "--state", str(live.state), "show", "limits"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, "No space left" in done.stderr) == (1, True)


@pytest.mark.parametrize("kind", [OffsiteError, OSError])
def test_what_an_error_quotes_cannot_steer_the_terminal(
    kind: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    """It may be what another system has said."""

    def fails(_line: CommandLine) -> int:
        raise kind("Newark: \x1b[2J\u202e")

    assert command_line.run(["serve"], {"serve": fails}) == 1
    assert capsys.readouterr().err == "offsite: Newark: \\x1b[2J\\u202e\n"


# -- which system -------------------------------------------------------------------------------------------------


def test_the_system_may_come_from_the_environment_and_an_option_goes_before_it(
    live: LiveSystem, tmp_path: Path
) -> None:
    assert quickly("show", "pools", environment={"OFFSITE_STATE": str(live.state)}).returncode == 0
    other = {"OFFSITE_STATE": str(tmp_path), "OFFSITE_SYSTEM": "https://x"}
    assert quickly("--state", str(live.state), "show", "pools", environment=other).returncode == 0


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["show", "pools"], 2, "no system specified"),
        (["--state", "x", "--system", "y", "show", "pools"], 2, "both given"),
        (["--state", "absent", "show", "pools"], 1, "running in absent; start it with `offsite serve absent`"),
        (["--state", "/dev/null", "show", "pools"], 1, "no system is running in /dev/null"),
        (["--system", "http://127.0.0.1", "show", "pools"], 1, "not of the form https://USER@HOST"),
        (["--system", "https://a:b@127.0.0.1", "show", "pools"], 1, "--system must not contain a password"),
        (["--system", "https://127.0.0.1:x", "show", "pools"], 1, "the port must be 1 to 65535"),
        (["--system", "https://127.0.0.1:1", "show", "pools"], 1, "no system answers at 127.0.0.1:1"),
        (["--system", "https://" + "x" * 64, "show", "pools"], 1, "invalid host name"),
        (["--system", "https://[x", "show", "pools"], 1, "invalid URL"),
        (["--state", "x" * 300, "show", "pools"], 1, "cannot be reached: File name too long"),
    ],
)  # fmt: skip
def test_a_system_that_is_not_there_is_told_with_what_to_do(words: list[str], status: int, sentence: str) -> None:
    done = quickly(*words, environment={"OFFSITE_PASSWORD": "x"})
    assert (done.returncode, done.stdout) == (status, "")
    assert sentence in done.stderr


def test_a_system_elsewhere_is_asked_over_tls_with_a_password(live: LiveSystem, home: dict[str, str]) -> None:
    unknown = quickly("--system", live.url, "--yes", "show", "pools", environment=home)
    assert unknown.returncode == 1, "--yes is no answer to whether it is the right system"
    assert live.fingerprint[1] in unknown.stderr and "Nothing was sent" in unknown.stderr
    first = quickly("--system", live.url, *live.fingerprint, "--json", "show", "pools", environment=home)
    assert (first.returncode, first.stderr) == (0, "")
    assert json.loads(first.stdout)["pools"][0]["name"] == "A"
    second = quickly("show", "pools", environment=home | {"OFFSITE_SYSTEM": live.url})
    assert (second.returncode, second.stderr) == (0, "")
    wrong = quickly("--system", live.url, "show", "pools", environment=home | {"OFFSITE_PASSWORD": "wrong"})
    assert (wrong.returncode, "is wrong" in wrong.stderr) == (1, True)


def test_a_certificate_that_changed_is_refused_before_the_password_is_sent(
    live: LiveSystem, home: dict[str, str]
) -> None:
    quickly("--system", live.url, *live.fingerprint, "show", "pools", environment=home)
    known = Path(home["HOME"]) / ".config/offsite/known_systems"
    place, digest = known.read_text().split()
    known.write_text(f"{place} {'0' * 64}\n")
    done = quickly("--system", live.url, "show", "pools", environment=home)
    assert done.returncode == 1
    assert "has changed" in done.stderr
    assert digest in done.stderr


def test_at_the_first_contact_the_fingerprint_is_shown_and_asked_about(live: LiveSystem, home: dict[str, str]) -> None:
    words = ["--system", live.url, "show", "pools"]
    status, screen = at_a_terminal(words, [("(yes/no)", "no")], home)
    assert (status, live.fingerprint[1] in screen) == (1, True)
    status, screen = at_a_terminal(words, [("(yes/no)", "yes")], home)
    assert (status, "16 KiB" in screen) == (0, True), screen
    assert at_a_terminal(words, [], home)[0] == 0, "it is known from now on"


def test_a_port_that_speaks_no_tls_is_told_apart(live: LiveSystem, home: dict[str, str]) -> None:
    done = quickly("--system", f"https://{live.nbd}", "show", "pools", environment=home)
    assert (done.returncode, f"{live.nbd} does not speak TLS" in done.stderr) == (1, True)


def test_the_certificate_may_be_given(live: LiveSystem, home: dict[str, str], tmp_path: Path) -> None:
    for name, status in (("ca.pem", 0), ("system.pem", 0)):
        certificate = str(live.state / "keys" / name)
        done = quickly("--system", live.url, "--certificate", certificate, "show", "pools", environment=home)
        assert (done.returncode, done.stderr) == (status, "")
    quickly("--state", str(live.state), "create", "initiator-certificate", "other", "--directory", str(tmp_path / "o"))
    other = str(tmp_path / "o" / "client-cert.pem")
    done = quickly("--system", live.url, "--certificate", other, "show", "pools", environment=home)
    assert done.returncode == 1
    assert "does not match" in done.stderr


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
        b"HTTP/1.1 500 No\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 50_000,
        b'HTTP/1.1 200 OK\r\n\r\n{"question": 5}',
        b'HTTP/1.1 200 OK\r\n\r\n{"question": {"text": "?", "secret": "HOME", "new": false}}',
        b'HTTP/1.1 200 OK\r\n\r\n{"message": "", "objects": [[]]}',
        b'HTTP/1.1 400 No\r\n\r\n{"error": {"text": 7, "code": {}}}',
        b"garbage\r\n\r\n",
    ],
)
def test_what_is_no_offsite_system_is_told_apart(short_directory: Path, answer: bytes) -> None:
    program = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print('ready', flush=True)\n"
        "c = s.accept()[0]; c.recv(65536); c.sendall(bytes.fromhex(sys.argv[2])); c.close()\n"
    )
    path = short_directory / "control.sock"
    with subprocess.Popen([sys.executable, "-c", program, str(path), answer.hex()], stdout=subprocess.PIPE) as impostor:
        assert impostor.stdout is not None
        impostor.stdout.readline()
        done = offsite("--state", str(short_directory), "show", "pools")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(("offsite: the system of", "offsite: the system asks for", "offsite: 7"))


# -- help ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["--help"], 0, "create volume"),
        (["help"], 0, "create volume"),
        ([], 2, "create volume"),
        (["create", "volume", "--help"], 0, "offsite create volume [access"),
        (["help", "show", "volume"], 0, "offsite show volumes"),
        (["serve", "--help"], 0, "--pool-size SIZE"),
        (["-h", "import"], 0, "offsite import <volume> <file>"),
        (["help", "creat"], 2, "did you mean 'create'?"),
        (["--version"], 0, f"offsite {__version__}"),
    ],
)
def test_help_needs_no_system(words: list[str], status: int, text: str) -> None:
    done = quickly(*words)
    assert done.returncode == status
    assert text in (done.stdout if status == 0 else done.stderr)


def test_a_command_loads_only_what_it_needs(live: LiveSystem) -> None:
    """The time that a command takes is mostly that of loading code."""
    program = (
        "import sys; from offsite.interfaces.cli.command_line import run;"
        f"status = run(['--state', {str(live.state)!r}, 'show', 'pools'], {{}});"
        "loaded = {'sqlalchemy', 'numpy', 'fastapi', 'uvicorn', 'alembic', 'cryptography', 'structlog', 'httpx'};"
        "sys.exit(status or sorted(loaded & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


# -- questions and secrets ----------------------------------------------------------------------------------------


def test_at_a_terminal_what_cannot_be_undone_is_asked_first(live: LiveSystem) -> None:
    words = ["--state", str(live.state)]
    live.do("create", "volume", "pool", "A", "size", "1MiB", "Kept")
    status, screen = at_a_terminal([*words, "delete", "volumes", "Kept"], [("(yes/no)", "no")])
    assert status == 1
    assert "Delete Kept (0 B written)?" in screen
    assert "nothing was changed" in screen
    assert "Kept" in live.do("show", "volumes")
    status, screen = at_a_terminal([*words, "delete", "volumes", "Kept"], [("(yes/no)", "yes")])
    assert (status, "Volume Kept deleted." in screen) == (0, True)


def test_the_question_can_be_answered_beforehand(live: LiveSystem) -> None:
    for option in (["--yes"], ["-y"], ["noprompt"], ["prompt", "yes"]):
        live.do("create", "volume", "pool", "A", "size", "1MiB", "Brief")
        status, screen = at_a_terminal(["--state", str(live.state), "delete", "volumes", "Brief", *option], [])
        assert (status, "(yes/no)" in screen) == (0, False)


def test_a_new_password_is_asked_for_twice_and_not_shown(live: LiveSystem) -> None:
    words = ["--state", str(live.state), "create", "user", "carla"]
    status, screen = at_a_terminal(
        words, [("Password:", "first password"), ("Repeat the password:", "second password")]
    )
    assert (status, "the two passwords differ" in screen) == (1, True)
    status, screen = at_a_terminal(words, [("Password:", "first password"), ("Repeat the password:", "first password")])
    assert (status, "User carla was created." in screen) == (0, True)
    assert "first password" not in screen


def test_a_remote_login_asks_for_the_password(live: LiveSystem, tmp_path: Path) -> None:
    words = ["--system", live.url, *live.fingerprint, "show", "pools"]
    status, screen = at_a_terminal(words, [("Password:", PASSWORD)], {"HOME": str(tmp_path)})
    assert (status, "16 KiB" in screen, PASSWORD in screen) == (0, True, False)


def test_ctrl_c_ends_a_question_without_a_traceback(live: LiveSystem) -> None:
    live.do("create", "volume", "pool", "A", "size", "1MiB", "Spared")
    status, screen = at_a_terminal(["--state", str(live.state), "delete", "volumes", "Spared"], [("(yes/no)", "\x03")])
    assert (status, "Traceback" in screen) == (130, False)
    status, screen = at_a_terminal(["--state", str(live.state), "delete", "volumes", "Spared"], [("(yes/no)", "\x04")])
    assert (status, "Traceback" in screen) == (1, False)
    live.do("delete", "volumes", "Spared")


# -- certificates -------------------------------------------------------------------------------------------------


def test_a_certificate_is_written_where_qemu_looks_and_never_over_another(live: LiveSystem, tmp_path: Path) -> None:
    done = live.offsite("create", "initiator-certificate", "web1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = ["ca-cert.pem", "client-cert.pem", "client-key.pem"]
    assert sorted(path.name for path in (tmp_path / "web1").iterdir()) == names
    assert all(stat.S_IMODE((tmp_path / "web1" / name).stat().st_mode) == 0o600 for name in names)
    assert "PRIVATE KEY" not in done.stdout
    before = (tmp_path / "web1" / "client-key.pem").read_bytes()
    again = live.offsite("create", "initiator-certificate", "web1", cwd=tmp_path)
    assert (again.returncode, "already exists" in again.stderr) == (1, True)
    assert (tmp_path / "web1" / "client-key.pem").read_bytes() == before
    shown = live.json("create", "initiator-certificate", "web2")["initiator-certificate"][0]
    assert shown["private-key"].startswith("-----BEGIN PRIVATE KEY-----")


@pytest.mark.parametrize(
    ("words", "directory"),
    [
        ("web3 days 90", "web3"),
        ("days 90 web4", "web4"),
        ("name web5 days 90", "web5"),
        ('"days" days 90', "days"),
        ("a/b days 90", "a_b"),
    ],
)
def test_the_directory_of_a_certificate_has_the_name_of_the_initiator(
    live: LiveSystem, tmp_path: Path, words: str, directory: str
) -> None:
    done = live.offsite("create", "initiator-certificate", *words.split(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [directory]


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        ("..", 1, "give a directory with --directory"),
        ("days 90", 2, "name is missing"),
        ("web6 days", 2, "has no value"),
    ],
)
def test_a_certificate_without_a_directory_is_refused_before_it_is_made(
    live: LiveSystem, tmp_path: Path, words: str, status: int, sentence: str
) -> None:
    before = live.json("show", "initiator-certificates")
    done = live.offsite("create", "initiator-certificate", *words.split(), cwd=tmp_path)
    assert (done.returncode, sentence in done.stderr) == (status, True), done.stderr
    assert list(tmp_path.iterdir()) == []
    assert live.json("show", "initiator-certificates") == before
