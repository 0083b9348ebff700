"""Completion: what may stand next, with names of the running system, for a shell that evaluates none of it."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsite.interfaces import control_socket
from offsite.interfaces.cli import declared, shell_words
from offsite.interfaces.cli.completion import expected, matching
from offsite.interfaces.cli.completion_scripts import SCRIPTS
from offsite.interfaces.cli.options import OPTIONS
from offsite.management.command_table.command import Role
from offsite.management.command_table.listings import LISTINGS
from offsite.management.command_table.parser import parse
from offsite.management.commands import TABLE
from tests.interfaces.live_system import LiveSystem, quickly

NAMES = {
    "volume": ["Sales", "Sales Archive"],
    "snapshot": ["Monday"],
    "pool": ["A", "B"],
    "replication set": ["SalesDR"],
    "task": ["Nightly"],
    "volume group": ["Books"],
}


def completed(line: str) -> list[str]:
    """What `line`, which ends where the cursor is, could go on with."""
    typed = line.split(" ")
    wanted = expected(declared.commands(), OPTIONS, typed)
    names = [name for noun in wanted.objects for name in NAMES.get(noun, [])]
    return ["FILES"] if wanted.files else matching(wanted, typed[-1], names)


@pytest.mark.parametrize(
    ("line", "candidates"),
    [
        ("sho", ["show"]),
        ("show vol", ["volume-groups", "volumes"]),
        ("abort ", ["replication"]),
        ("help roll", ["rollback"]),
        ("help rollback ", ["volume"]),
        ("nope ", []),
        ("expand volume ", ["Sales", "Sales Archive", "size"]),
        ("Expand Volumes si", ["size"]),
        ("expand volume size ", ["max"]),
        ("expand volume size 1GiB ", ["Sales", "Sales Archive"]),
        ("expand volume size 1GiB Sales ", []),
        ("copy volume destination-pool ", ["A", "B"]),
        ("copy volume name size ", ["Monday", "Sales", "Sales Archive", "destination-pool"]),
        ("map volume access read-", ["read-only", "read-write"]),
        ("delete volumes S", ["Sales", "Sales Archive"]),
        ("delete volumes Sales,S", ["Sales,Sales Archive"]),
        ("delete tasks ", ["Nightly", "all", "noprompt", "prompt"]),
        ("delete tasks prompt ", ["no", "yes"]),
        ("create task type R", ["Replicate", "ResetSnapshot"]),
        ("create task type Replicate ", ["last-snapshot", "replication-set"]),
        ("create task type Replicate last-snapshot ", ["off", "on", "replication-set"]),
        ("create task type Replicate last-snapshot Nightly ", ["replication-set"]),
        ("set peer-connection fi", []),
        ("set peer-connection remote-username manage fi", ["fingerprint"]),
        ("create user pass", []),
        ("replicate --w", ["--wait"]),
        ("replicate --wait ", ["SalesDR", "snapshot"]),
        ("show pools --w", []),
        ("--json show pools --js", []),
        ("--sys", ["--system"]),
        ("--state d show po", ["pools"]),
        ("--state ", ["FILES"]),
        ("import New ", ["FILES"]),
        ("import New disk.raw ", []),
        ("export ", ["Monday", "Sales", "Sales Archive"]),
        ("completion ", ["bash", "fish", "zsh"]),
    ],
)
def test_what_may_stand_next_is_offered(line: str, candidates: list[str]) -> None:
    assert completed(line) == candidates


WORDS = sorted({word for each in TABLE for word in (*each.words, *(one.name for one in each.parameters))})


@given(st.lists(st.sampled_from(WORDS) | st.text(max_size=6), min_size=1, max_size=7))
def test_any_line_has_candidates_that_go_on_with_it_or_none(typed: list[str]) -> None:
    for each in matching(expected(declared.commands(), OPTIONS, typed), typed[-1], ["Sales"]):
        assert each.lower().startswith(typed[-1].lower())


def test_a_name_that_cannot_be_printed_is_not_offered() -> None:
    wanted = expected(declared.commands(), OPTIONS, ["delete", "volumes", ""])
    assert "x\x1b[2J" not in matching(wanted, "", ["x\x1b[2J", "a\nb"])
    assert matching(wanted, "a", ["a\nb", "ab"]) == ["ab"]


def test_every_kind_of_object_is_listed_by_a_command_that_shows_it_quickly() -> None:
    """Whoever may look at everything may complete everything, and nothing waits for another system."""
    kinds = {noun for each in TABLE for one in each.parameters if one.type for noun in one.type.objects}
    assert kinds == set(LISTINGS)
    for listing in LISTINGS.values():
        command = parse(TABLE, listing.command).command
        assert command.role is Role.MONITOR
        assert not command.slow
        assert set(listing.properties) <= {one.name for each in command.returns for one in each.properties}


# -- the words of a shell ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words", "quote"),
    [
        ("offsite show vol", ("offsite", "show", "vol"), ""),
        ("offsite  show ", ("offsite", "show", ""), ""),
        ('offsite delete volumes "Sales Ar', ("offsite", "delete", "volumes", "Sales Ar"), '"'),
        ("offsite delete volumes 'it", ("offsite", "delete", "volumes", "it"), "'"),
        ("offsite delete volumes Sales\\ Ar", ("offsite", "delete", "volumes", "Sales Ar"), ""),
        ('offsite x "a\\"b" ', ("offsite", "x", 'a"b', ""), ""),
        ("offsite x ''", ("offsite", "x", ""), ""),
        ("offsite $(rm x)", ("offsite", "$(rm", "x)"), ""),
        ("", ("",), ""),
    ],
)
def test_a_line_of_bash_is_split_and_never_evaluated(line: str, words: tuple[str, ...], quote: str) -> None:
    assert shell_words.split(line) == shell_words.Place(words, quote)


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_a_candidate_is_one_word_of_bash_whatever_is_in_it(quote: str) -> None:
    for name in ("Sales Archive", "$(touch x)", "`id`", "a'b", "a;b&c|d>e", "~", "#x", "*", "-x", "ä ö", "!1", "{a,b}"):
        inserted = list(shell_words.Place(("offsite", ""), quote).inserted([name]))
        if (quote == "'" and "'" in name) or (quote == '"' and "!" in name):
            assert inserted == []
            continue
        shown = subprocess.run(
            ["bash", "-c", f"printf %s {quote}{inserted[0]}{quote}"], capture_output=True, text=True, check=True
        ).stdout
        assert shown == name


@pytest.mark.parametrize(
    ("typed", "inserted"),
    [
        ("tls:we", "web1@x"),
        ("tls:web1@", "@x"),  # bash replaces from this one on, not what is behind it
        ('"tls:we', "tls:web1@x"),
        ('"tls:"we', "tls:web1@x"),  # a character in quotes breaks no word
        ("tls\\:we", "tls:web1@x"),
        ('"tls":"we', "web1@x"),  # the quote that is open begins what bash replaces
    ],
)
def test_bash_gets_only_what_it_replaces(typed: str, inserted: str) -> None:
    assert list(shell_words.split(f"offsite {typed}").inserted(["tls:web1@x"])) == [inserted]


def test_bash_gets_nothing_in_quotes_that_they_do_not_hold() -> None:
    """In double quotes a terminal's bash expands ! from its history, and no backslash prevents that."""
    assert list(shell_words.Place(("offsite", ""), '"').inserted(["a!!b", "ab"])) == ["ab"]
    assert list(shell_words.Place(("offsite", ""), "'").inserted(["a!!b", "a'b"])) == ["a!!b"]
    assert list(shell_words.Place(("offsite", "")).inserted(["a!!b"])) == ["a\\!\\!b"]


def test_bash_gets_the_whole_word_where_its_user_has_no_breaks() -> None:
    """Other scripts of completion take characters out of COMP_WORDBREAKS."""
    assert list(shell_words.split("offsite tls:web1@", " ").inserted(["tls:web1@x"])) == ["tls:web1@x"]


# -- with a system ----------------------------------------------------------------------------------------------------


def test_names_come_from_the_running_system(live: LiveSystem) -> None:
    live.do("create", "volume", "pool", "A", "size", "1MiB", "Completed One")
    typed = ["--state", str(live.state), "delete", "volumes", "Completed"]
    assert quickly("complete", "--", *typed).stdout == "Completed One\n"
    line = f"offsite --state {live.state} delete volumes Completed"
    assert quickly("complete", "--bash", "--", line).stdout == "Completed\\ One\n"
    remote = quickly("complete", "--", "--system", live.url, "delete", "volumes", "Completed")
    assert (remote.returncode, remote.stdout, remote.stderr) == (0, "", ""), "without a password nobody is asked for it"


def test_without_a_system_there_are_words_and_no_complaint(tmp_path: Path) -> None:
    done = quickly("complete", "--", "--state", str(tmp_path), "delete", "volumes", "")
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["noprompt", "prompt"], "")
    assert quickly("complete", "--", "export", "x", "").returncode == 4


def test_a_system_that_does_not_answer_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody who types waits for it."""
    monkeypatch.setattr("offsite.interfaces.cli.completing.DEADLINE_SECONDS", 0.05)
    with socket.socket(socket.AF_UNIX) as silent, control_socket.short(tmp_path / control_socket.NAME) as path:
        silent.bind(str(path))
        silent.listen()
        done = quickly("complete", "--", "--state", str(tmp_path), "delete", "volumes", "")
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["noprompt", "prompt"], "")


@pytest.mark.parametrize("shell", sorted(SCRIPTS))
def test_the_script_of_each_shell_is_printed_and_well_formed(shell: str) -> None:
    script = quickly("completion", shell).stdout
    assert script == SCRIPTS[shell]
    assert "eval" not in script
    if shutil.which(shell) is not None:
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_a_name_that_has_everything_in_it(live: LiveSystem, tmp_path: Path) -> None:
    """A real bash at a terminal: the name arrives as one word, and nothing in it is done."""
    name = "Tab $(touch pwned) it's"
    live.do("create", "volume", "pool", "A", "size", "1MiB", name)
    program = tmp_path / "offsite"
    program.write_text(
        f'#!/bin/sh\ncase $1 in complet*) exec {sys.executable} -m offsite "$@" ;; esac\nprintf "<%s>" "$@"; echo end\n'
    )
    program.chmod(0o755)
    (tmp_path / "script").write_text(SCRIPTS["bash"])
    shown = _typed_in_bash(tmp_path, live.state, "offsite delete volumes Tab\t\n", until="end\r\n")
    assert f"<delete><volumes><{name}>end" in shown
    assert not (tmp_path / "pwned").exists()


def _typed_in_bash(directory: Path, state: Path, keys: str, until: str) -> str:
    environment = {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}", "TERM": "dumb", "PS1": "ready> "}
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(directory)
        os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], {**environment, "OFFSITE_STATE": str(state)})
    try:
        os.write(terminal, b"source ./script; PS1=\"go\"'> '\n")
        screen = _read_until(terminal, "go> ")
        os.write(terminal, keys.encode())
        return screen + _read_until(terminal, until)
    finally:
        os.close(terminal)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def _read_until(terminal: int, text: str) -> str:
    screen, deadline = "", time.monotonic() + 60
    while text not in screen:
        assert select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0], screen
        screen += os.read(terminal, 4096).decode(errors="replace")
    return screen
