"""What is put aside when keys were lost, so that the authority makes just that again."""

from __future__ import annotations

from pathlib import Path

import pytest

from offsite.access.certificates import Authority
from offsite.access.lost_keys import sentence, set_aside

AUTHORITY = {"ca-key.pem", "ca.pem"}
SYSTEM = {"system-key.pem", "system.pem"}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    Authority(tmp_path / "keys", "London", ["127.0.0.1"])
    return tmp_path / "keys"


def contents(keys: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in keys.iterdir()}


def test_nothing_is_touched_when_nothing_is_lost(keys: Path) -> None:
    before = contents(keys)
    assert set_aside(keys) == ()
    assert contents(keys) == before


@pytest.mark.parametrize("lost", [{"system.pem"}, {"system-key.pem"}, SYSTEM])
def test_when_the_system_lost_its_own_the_authority_stays(keys: Path, lost: set[str]) -> None:
    """Certificates that hosts hold stay good."""
    before = contents(keys)
    for name in lost:
        (keys / name).unlink()
    assert set(set_aside(keys)) == SYSTEM
    assert {path.name for path in keys.iterdir()} == AUTHORITY | {f"{name}.old" for name in SYSTEM - lost}
    Authority(keys, "London", ["127.0.0.1"])
    after = contents(keys)
    assert all(after[name] == before[name] for name in AUTHORITY)
    assert all(after[name] != before[name] for name in SYSTEM)
    assert all(after[f"{name}.old"] == before[name] for name in SYSTEM - lost)


@pytest.mark.parametrize("lost", [{"ca.pem"}, {"ca-key.pem"}, {"ca.pem", "system.pem"}, AUTHORITY | SYSTEM])
def test_without_its_authority_the_systems_certificate_is_made_again_as_well(keys: Path, lost: set[str]) -> None:
    """Who trusts the new authority would not trust it."""
    before = contents(keys)
    for name in lost:
        (keys / name).unlink()
    assert set(set_aside(keys)) == AUTHORITY | SYSTEM
    assert set(set_aside(keys)) == AUTHORITY | SYSTEM, "a stop in between: it is done again"
    assert {path.name for path in keys.iterdir()} == {f"{name}.old" for name in (AUTHORITY | SYSTEM) - lost}
    Authority(keys, "London", ["127.0.0.1"])
    assert not set(contents(keys).values()) & {before[name] for name in lost}
    assert set_aside(keys) == ()


def test_a_directory_that_is_gone_has_lost_all(tmp_path: Path) -> None:
    assert set(set_aside(tmp_path / "keys")) == AUTHORITY | SYSTEM


def test_the_operator_is_told_what_follows() -> None:
    assert "hosts need new certificates" in sentence("London", ("ca-key.pem", "ca.pem"), "ab")
    told = sentence("London", ("system-key.pem", "system.pem"), "ab")
    assert "system-key.pem, system.pem" in told and "now has the fingerprint ab" in told and "hosts" not in told
