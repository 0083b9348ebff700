"""Commands about peer connections, replication sets and runs, on two systems that are really connected."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

from offsite.errors import (
    AuthenticationFailed,
    BadParameter,
    CertificateChanged,
    InUse,
    NameInUse,
    NotAllowed,
    ObjectNotFound,
    OffsiteError,
    PeerUnreachable,
    VolumeNotFound,
)
from offsite.management.command_table.object_types import Row
from offsite.management.command_table.reply import Question
from offsite.units import MIB
from tests.management.management_bench import MONITOR, PASSWORD, Bench


@pytest.fixture
def two(make_bench: Callable[[str], Bench]) -> Iterator[tuple[Bench, Bench]]:
    yield make_bench("London"), make_bench("Newark")


def connect(london: Bench, newark: Bench) -> None:
    london.do(
        f"create peer-connection remote-port-address {newark.system.addresses['peer']} remote-username manage Newark",
        secrets={"remote-password": PASSWORD},
    )


def replicate(london: Bench) -> Row:
    (run,) = london.do("replicate SalesDR").rows
    deadline = time.monotonic() + 30
    while run["state"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.02)
        run = london.rows("show replication-runs SalesDR")[0]
    return run


def test_a_volume_is_replicated_and_shown_on_both_sides(two: tuple[Bench, Bench]) -> None:
    london, newark = two
    connect(london, newark)
    london.do("create volume pool A size 8MiB Sales")
    data = os.urandom(3 * MIB)
    london.write("Sales", MIB, data)
    (row,) = london.rows("create replication-set peer-connection Newark primary-volume Sales SalesDR")
    assert (row["status"], row["primary-location"], row["last-run-status"]) == ("Unsynchronized", "Local", "N/A")

    run = replicate(london)
    assert (run["state"], run["progress"], run["error"]) == ("success", 100.0, "")
    assert run["changed-bytes"] == 3 * MIB
    assert replicate(london)["changed-bytes"] == 0
    assert newark.read("Sales", MIB, len(data)) == data

    for bench, role in ((london, "primary"), (newark, "secondary")):
        (row,) = bench.rows("show replication-sets SalesDR")
        assert (row["status"], row["last-run-status"]) == ("Ready", "Success")
        (volume,) = bench.rows("show volumes")
        assert (volume["cs-replication-role"], volume["replication-set"]) == (role, "SalesDR")
        assert len(bench.rows("show replication-runs")) == 2
    digests = {str(bench.rows("show digest Sales")[0]["digest"]) for bench in two}
    assert len(digests) == 1


def test_what_a_set_needs_is_neither_deleted_nor_changed_behind_its_back(two: tuple[Bench, Bench]) -> None:
    london, newark = two
    connect(london, newark)
    london.do("create volume pool A size 8MiB Sales")
    london.do("create replication-set peer-connection Newark primary-volume Sales SalesDR")
    replicate(london)
    newark.do("create snapshots volumes Sales Check")
    london.refused("delete volumes Sales", InUse, "Sales cannot be deleted", "SalesDR")
    london.refused("delete peer-connection Newark", InUse, "SalesDR")
    for line in (
        "map volume Sales",
        "expand volume size 1MiB Sales",
        "rollback volume snapshot Check Sales",
        "set volume name X Sales",
    ):
        newark.refused(line, NotAllowed, "Sales is the secondary volume")
    newark.refused("delete volumes Sales", InUse, "SalesDR")
    newark.refused("replicate SalesDR", NotAllowed, "secondary here", "London")
    newark.do("map volume Check")
    newark.do("delete snapshot Check")

    question = london.answer("delete replication-set SalesDR", asks=True)
    assert isinstance(question, Question)
    assert "on this system and on Newark" in question.text
    london.do("delete replication-set SalesDR")
    assert london.rows("show replication-sets") == newark.rows("show replication-sets") == ()
    newark.do("map volume Sales")
    london.do("delete volumes Sales")
    question = london.answer("delete peer-connection Newark", asks=True)
    assert isinstance(question, Question)
    assert "system Newark" in question.text
    london.do("delete peer-connection Newark")
    assert london.rows("show peer-connections") == newark.rows("show peer-connections") == ()


@pytest.mark.slow
def test_a_peer_is_asked_who_it_is_and_shown(two: tuple[Bench, Bench]) -> None:
    london, newark = two
    (found,) = london.rows(f"query peer-connection {newark.system.addresses['peer']}")
    assert found["system-name"] == "Newark"
    assert found["certificate-fingerprint"] == newark.system.authority.fingerprint
    connect(london, newark)
    for bench, other in ((london, newark), (newark, london)):
        (peer,) = bench.rows("show peer-connections")
        assert (peer["connection-status"], peer["remote-system-name"]) == ("Online", other.system.name)
        assert peer["remote-certificate-fingerprint"] == other.system.authority.fingerprint
    newark.stop_replication()
    deadline = time.monotonic() + 20
    while london.rows("show peer-connections Newark")[0]["connection-status"] == "Online":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    london.do("delete peer-connection local-only Newark")


REFUSED: list[tuple[str, type[OffsiteError], list[str]]] = [
    ("create replication-set peer-connection Paris primary-volume Sales X", ObjectNotFound, ["'Paris'"]),
    ("create replication-set peer-connection Newark primary-volume Nope X", VolumeNotFound, ["'Nope'"]),
    ("create replication-set peer-connection Newark primary-volume Sales a,b", BadParameter, ["'a,b'"]),
    (
        "create replication-set peer-connection Newark primary-volume Sales secondary-pool Z X",
        OffsiteError,
        ["Z"],
    ),
    (
        "create replication-set peer-connection Newark primary-volume Sales secondary-volume-name Taken X",
        OffsiteError,
        ["Taken"],
    ),
    ("create peer-connection remote-port-address :0 remote-username manage X", BadParameter, ["':0'"]),
    ("create peer-connection remote-port-address 127.0.0.1:1 remote-username manage X", PeerUnreachable, [":1"]),
    ("create peer-connection remote-port-address 127.0.0.1:1 remote-username manage Newark", NameInUse, ["'Newark'"]),
    ("query peer-connection 127.0.0.1:1", PeerUnreachable, ["127.0.0.1:1"]),
    ("replicate Nope", ObjectNotFound, ["'Nope'"]),
    ("delete replication-set Nope", ObjectNotFound, ["'Nope'"]),
    ("delete peer-connection Nope", ObjectNotFound, ["'Nope'"]),
    ("set peer-connection name X Nope", ObjectNotFound, ["'Nope'"]),
    ("set peer-connection Newark", BadParameter, ["no change specified", "Newark"]),
    ("set peer-connection name a,b Newark", BadParameter, ["'a,b'"]),
    ("set peer-connection remote-port-address :0 Newark", BadParameter, ["':0'"]),
    ("set peer-connection remote-port-address 127.0.0.1:1 Newark", PeerUnreachable, [":1"]),
    ("set peer-connection remote-port-address 127.0.0.1:1 remote-username manage Newark", PeerUnreachable, [":1"]),
    ("set peer-connection fingerprint ab name X Newark", BadParameter, ["give remote-username as well"]),
    ("set peer-connection bandwidth-limit 10 Newark", BadParameter, ["'10' has no unit"]),
    ("set peer-connection bandwidth-limit 50KB Newark", BadParameter, ["'50KB'", "100KB to 1TB"]),
    ("set peer-connection bandwidth-limit 2TB Newark", BadParameter, ["'2TB'", "100KB to 1TB"]),
    (
        'set peer-connection bandwidth-calendar "Mon 08:00 1MB" Newark',
        BadParameter,
        ["'Mon 08:00 1MB'", "not a window"],
    ),
    (
        'set peer-connection bandwidth-calendar "Mon 08:00-10:00 1MB, Mon 09:00-11:00 2MB" Newark',
        BadParameter,
        ["overlap"],
    ),
    ("show replication-sets Nope", ObjectNotFound, ["'Nope'"]),
    ("show replication-runs Nope", ObjectNotFound, ["'Nope'"]),
    ("show peer-connections Nope", ObjectNotFound, ["'Nope'"]),
]


def test_each_refusal_names_the_value_and_changes_nothing_on_either_side(two: tuple[Bench, Bench]) -> None:
    london, newark = two
    connect(london, newark)
    london.do("create volume pool A size 8MiB Sales")
    newark.do("create volume pool A size 8MiB Taken")
    there = newark.state()
    for line, error, words in REFUSED:
        before = london.state()
        with pytest.raises(error) as refusal:
            london.do(line, secrets={"remote-password": PASSWORD} if "remote-username" in line else {})
        assert all(word in str(refusal.value) for word in words), (line, str(refusal.value))
        assert london.state() == before, line
    assert newark.state() == there


def test_a_peer_connection_is_renamed_and_limited(two: tuple[Bench, Bench]) -> None:
    london, newark = two
    connect(london, newark)
    (peer,) = london.rows("show peer-connections")
    assert [peer[f"bandwidth-{each}"] for each in ("limit", "calendar", "limit-now")] == ["none", "none", "none"]
    (peer,) = london.do(
        'set peer-connection name East bandwidth-limit 10MB bandwidth-calendar "mon-sun 00:00-24:00 1.5MiB/s" Newark'
    ).rows
    assert peer["peer-connection-name"] == "East"
    assert peer["bandwidth-limit"] == "10MB"
    assert peer["bandwidth-calendar"] == "Mon-Sun 00:00-24:00 1536KiB"
    assert (peer["bandwidth-limit-now"], peer["bandwidth-limit-now-numeric"]) == ("1536KiB", 3 << 19)
    (peer,) = london.do("set peer-connection bandwidth-calendar none East").rows
    assert (peer["bandwidth-calendar"], peer["bandwidth-limit-now"]) == ("none", "10MB")
    (peer,) = london.do("set peer-connection bandwidth-limit none East").rows
    assert (peer["bandwidth-limit-now"], peer["bandwidth-limit-now-numeric"]) == ("none", None)


def test_the_password_is_asked_for_when_a_user_is_named_and_only_then(two: tuple[Bench, Bench]) -> None:
    london, newark = two
    connect(london, newark)
    question = london.answer("set peer-connection remote-username manage Newark")
    assert isinstance(question, Question)
    assert question.secret == "remote-password"
    assert not isinstance(london.answer("set peer-connection name East Newark", asks=True), Question)
    before = london.state(), newark.state()
    for line, secrets, error in (
        ("set peer-connection remote-username manage East", {"remote-password": "wrong"}, AuthenticationFailed),
        ("set peer-connection name West East", {"remote-password": PASSWORD}, BadParameter),
    ):
        with pytest.raises(error):
            london.do(line, secrets=secrets)
    assert (london.state(), newark.state()) == before
    london.do("set peer-connection remote-username manage East", secrets={"remote-password": PASSWORD})
    assert "logged in" in str(london.rows("show events")[0]["message"])


def test_at_the_first_contact_the_fingerprint_is_shown_and_what_was_shown_is_what_gets_the_password(
    two: tuple[Bench, Bench],
) -> None:
    """Somebody else may answer at that address, at the question or only after it."""
    london, newark = two
    line = f"create peer-connection remote-port-address {newark.system.addresses['peer']} remote-username manage Newark"
    secrets = {"remote-password": PASSWORD}
    question = london.answer(line, secrets=secrets, asks=True)
    assert isinstance(question, Question) and not question.secret
    assert newark.system.authority.fingerprint in question.text
    assert question.adds == ("fingerprint", newark.system.authority.fingerprint)
    assert london.names("show peer-connections") == [], "nothing was done before the answer"
    with pytest.raises(CertificateChanged, match="the password was not sent"):
        london.do(f"{line} fingerprint {'0' * 64}", secrets=secrets)
    london.do(f"{line} {' '.join(question.adds)}", secrets=secrets)
    again = "set peer-connection remote-username manage Newark"
    assert not isinstance(london.answer(again, secrets=secrets, asks=True), Question), (
        "the pinned one needs no question"
    )


def test_a_wrong_password_or_role_connects_nothing(two: tuple[Bench, Bench]) -> None:
    london, newark = two
    newark.do("create user roles monitor otto", secrets={"password": PASSWORD})
    address = newark.system.addresses["peer"]
    before = london.state(), newark.state()
    for user, password in (("manage", "wrong"), ("nobody", PASSWORD), ("otto", PASSWORD)):
        with pytest.raises(AuthenticationFailed):
            london.do(
                f"create peer-connection remote-port-address {address} remote-username {user} Newark",
                secrets={"remote-password": password},
            )
    assert (london.state(), newark.state()) == before
    question = london.answer(f"create peer-connection remote-port-address {address} remote-username manage Newark")
    assert isinstance(question, Question)
    assert question.secret == "remote-password"


def test_who_monitors_cannot_replicate_or_make_this_system_dial(two: tuple[Bench, Bench]) -> None:
    london, _ = two
    for line in (
        "replicate SalesDR",
        "set peer-connection name X Newark",
        "query peer-connection 127.0.0.1",
        "delete replication-set SalesDR",
    ):
        london.refused(line, NotAllowed, "role manage", user=MONITOR)
    assert london.do("show replication-sets", MONITOR).rows == ()
