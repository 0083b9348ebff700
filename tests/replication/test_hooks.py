"""Hooks are programs of whoever administrates the machine: they have a deadline, and no say over anything else."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from offsite.errors import BadParameter
from offsite.replication.hooks import HookDirectory, HookFailed


@pytest.fixture
def hooks(tmp_path: Path) -> HookDirectory:
    (tmp_path / "hooks").mkdir()
    return HookDirectory(tmp_path / "hooks")


def write(tmp_path: Path, name: str, script: str) -> None:
    path = tmp_path / "hooks" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)


def test_a_hook_runs_in_its_directory_and_knows_its_set(tmp_path: Path, hooks: HookDirectory) -> None:
    write(tmp_path, "freeze", 'echo "$OFFSITE_SET $HOME" > told; pwd >> told')
    hooks.run("freeze", 10, {"OFFSITE_SET": "SalesDR"})
    assert (tmp_path / "hooks" / "told").read_text() == f"SalesDR \n{tmp_path}/hooks\n", "and nothing of ours"


def test_a_hook_that_fails_tells_what_it_said(tmp_path: Path, hooks: HookDirectory) -> None:
    write(tmp_path, "freeze", "echo the database is not there >&2; exit 3")
    with pytest.raises(HookFailed, match="hook freeze ended with status 3: the database is not there"):
        hooks.run("freeze", 10, {})


def test_a_hook_says_much_and_the_end_of_it_is_told(tmp_path: Path, hooks: HookDirectory) -> None:
    write(tmp_path, "freeze", "yes noise | head -c 1000000; echo; echo at last; exit 1")
    with pytest.raises(HookFailed) as refused:
        hooks.run("freeze", 10, {})
    assert str(refused.value).endswith("at last") and len(str(refused.value)) < 700


def test_a_hook_that_does_not_end_is_killed_with_its_children(tmp_path: Path, hooks: HookDirectory) -> None:
    write(tmp_path, "freeze", "sleep 60 & echo $! > child; wait")
    begun = time.monotonic()
    with pytest.raises(HookFailed, match="had not ended after 1 s, and was killed"):
        hooks.run("freeze", 1, {})
    assert time.monotonic() - begun < 5
    child = int((tmp_path / "hooks" / "child").read_text())
    until = time.monotonic() + 10
    while Path(f"/proc/{child}/stat").exists() and " Z " not in Path(f"/proc/{child}/stat").read_text():
        assert time.monotonic() < until, "the child of the hook lives on"
        time.sleep(0.01)


def test_a_hook_that_cannot_be_started_says_so(tmp_path: Path, hooks: HookDirectory) -> None:
    (tmp_path / "hooks" / "freeze").write_text("#!/no/such/interpreter\n")
    (tmp_path / "hooks" / "freeze").chmod(0o700)
    with pytest.raises(HookFailed, match="cannot be started: No such file"):
        hooks.run("freeze", 10, {})


@pytest.mark.parametrize("name", ["", "../freeze", "/bin/true", ".hidden", "none", "plain", "directory", "a/b"])
def test_only_an_executable_file_of_the_directory_is_a_hook(tmp_path: Path, hooks: HookDirectory, name: str) -> None:
    write(tmp_path, ".hidden", "true")
    write(tmp_path, "plain", "true")
    (tmp_path / "hooks" / "plain").chmod(0o600)
    (tmp_path / "hooks" / "directory").mkdir()
    with pytest.raises(BadParameter, match="hook"):
        hooks.check(name)
    with pytest.raises(HookFailed):
        hooks.run(name, 10, {})
