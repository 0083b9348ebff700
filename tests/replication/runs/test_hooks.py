"""Hooks are programs of whoever administrates the machine: they have a deadline, and no say over anything else."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from offsite.errors import BadParameter
from offsite.replication.runs.hooks import Cut, HookDirectory, HookFailed
from tests.systems import wait_until


@pytest.fixture
def hooks(tmp_path: Path) -> HookDirectory:
    (tmp_path / "hooks").mkdir()
    return HookDirectory(tmp_path / "hooks")


def write(tmp_path: Path, name: str, script: str) -> None:
    path = tmp_path / "hooks" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)


def is_dead(path: Path) -> bool:
    """The process whose number was written there."""
    state = Path(f"/proc/{path.read_text().strip()}/stat")
    return not state.exists() or " Z " in state.read_text()


def test_a_hook_runs_in_its_directory_and_knows_its_set(tmp_path: Path, hooks: HookDirectory) -> None:
    write(tmp_path, "freeze", 'echo "$OFFSITE_SET $HOME" > told; pwd >> told')
    hooks.run("freeze", 10, {"OFFSITE_SET": "SalesDR"}, Cut())
    assert (tmp_path / "hooks" / "told").read_text() == f"SalesDR \n{tmp_path}/hooks\n", "and nothing of ours"


def test_a_hook_that_fails_tells_what_it_said(tmp_path: Path, hooks: HookDirectory) -> None:
    write(tmp_path, "freeze", "echo the database is not there >&2; exit 3")
    with pytest.raises(HookFailed, match="hook freeze ended with status 3: the database is not there"):
        hooks.run("freeze", 10, {}, Cut())


def test_a_hook_says_much_and_the_end_of_it_is_told(tmp_path: Path, hooks: HookDirectory) -> None:
    write(tmp_path, "freeze", "yes noise | head -c 1000000; echo; echo at last; exit 1")
    with pytest.raises(HookFailed) as refused:
        hooks.run("freeze", 10, {}, Cut())
    assert str(refused.value).endswith("at last") and len(str(refused.value)) < 700


def test_a_hook_that_does_not_end_is_killed_with_its_children(tmp_path: Path, hooks: HookDirectory) -> None:
    write(tmp_path, "freeze", "sleep 60 & echo $! > child; wait")
    begun = time.monotonic()
    with pytest.raises(HookFailed, match="did not end within 1 s and was killed"):
        hooks.run("freeze", 1, {}, Cut())
    assert time.monotonic() - begun < 5
    wait_until("the child of the hook is dead", lambda: is_dead(tmp_path / "hooks" / "child"))


@pytest.mark.parametrize("when", ["before it begins", "while it runs"])
def test_a_hook_is_cut_with_its_children(tmp_path: Path, hooks: HookDirectory, when: str) -> None:
    child, cut = tmp_path / "hooks" / "child", Cut()
    write(tmp_path, "freeze", "sleep 60 & echo $! > written; mv written child; wait")
    if when == "before it begins":
        cut.now("nobody wants it")
    with ThreadPoolExecutor() as threads:
        begun = time.monotonic()
        running = threads.submit(hooks.run, "freeze", 60, {}, cut)
        if when == "while it runs":
            wait_until("it runs", child.exists)
            cut.now("nobody wants it")
        with pytest.raises(HookFailed, match=r"^hook freeze was killed: nobody wants it$"):
            running.result(10)
        assert time.monotonic() - begun < 10
    if child.exists():
        wait_until("the child of the hook is dead", lambda: is_dead(child))


def test_a_cut_that_comes_too_late_harms_nothing(tmp_path: Path, hooks: HookDirectory) -> None:
    write(tmp_path, "freeze", "true")
    cut = Cut()
    hooks.run("freeze", 10, {}, cut)
    cut.now("nobody wants it")


def test_a_hook_that_cannot_be_started_says_so(tmp_path: Path, hooks: HookDirectory) -> None:
    (tmp_path / "hooks" / "freeze").write_text("#!/no/such/interpreter\n")
    (tmp_path / "hooks" / "freeze").chmod(0o700)
    with pytest.raises(HookFailed, match="cannot be started: No such file"):
        hooks.run("freeze", 10, {}, Cut())


@pytest.mark.parametrize("name", ["", "../freeze", "/bin/true", ".hidden", "none", "plain", "directory", "a/b"])
def test_only_an_executable_file_of_the_directory_is_a_hook(tmp_path: Path, hooks: HookDirectory, name: str) -> None:
    write(tmp_path, ".hidden", "true")
    write(tmp_path, "plain", "true")
    (tmp_path / "hooks" / "plain").chmod(0o600)
    (tmp_path / "hooks" / "directory").mkdir()
    with pytest.raises(BadParameter, match="hook"):
        hooks.check(name)
    with pytest.raises(HookFailed):
        hooks.run(name, 10, {}, Cut())
