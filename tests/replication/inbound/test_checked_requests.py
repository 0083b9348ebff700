"""What only shows in a whole request of a peer, or against the set that it is for, is checked as a user's."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from offsite.errors import BadParameter, OffsiteError, PeerRefused
from offsite.replication.link.dialer import Dialer
from offsite.replication.link.identity import SystemIdentity
from offsite.replication.wire.batch import DIGEST_START, chain
from offsite.replication.wire.messages import (
    AnyMessage,
    Ask,
    Batch,
    Begin,
    ChangeSet,
    Commit,
    CreateSet,
    HistorySnapshot,
    Message,
    NewMember,
    Ping,
    Position,
    SetSettings,
)
from tests.replication.inbound.test_third_system import EMPTY_DIGEST
from tests.replication.sites import Site, Unintroduced, pair

MIB = 1 << 20
RUN = str(uuid.uuid4())


@pytest.fixture(autouse=True)
def paired(london: Site, newark: Site) -> None:
    pair(london, newark)


def say(london: Site, *messages: AnyMessage) -> Message:
    """The last answer of Newark."""
    peers = london.replication.peers
    with peers.connect(peers.record("Newark")) as connection:
        for message in messages:
            answer = connection.channel.ask(connection.asking, message, Message)
    return answer


def create_set(**changed: Any) -> CreateSet:
    values: dict[str, Any] = {
        "set_uuid": str(uuid.uuid4()),
        "settings": SetSettings(name="SalesDR"),
        "generation": 1,
        "primary_pool": "A",
        "secondary_pool": "A",
        "members": [NewMember(primary_name="Sales", secondary_name="Sales", size_bytes=MIB)],
    }
    return CreateSet(**values | changed)


def members(count: int, size_bytes: int = MIB) -> list[NewMember]:
    return [NewMember(primary_name=f"V{at}", secondary_name=f"V{at}", size_bytes=size_bytes) for at in range(count)]


GROUPS = {"primary_group": "G", "secondary_group": "G"}
HISTORY: dict[str, Any] = {"snapshot_history": "secondary", "snapshot_count": 3}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"members": members(2)}, "2 volumes in a set without a group"),
        ({"primary_group": "G"}, "requires a group on both systems"),
        ({"secondary_group": "G"}, "requires a group on both systems"),
        ({"members": members(1, 4097)}, "sizes are multiples of 4096"),
        ({"members": members(1) * 2} | GROUPS, "'V0'"),
        ({"settings": SetSettings(name="S", **HISTORY)}, "snapshot-basename is missing"),
        ({"settings": SetSettings(name="S", snapshot_basename="b" * 23, **HISTORY)} | GROUPS, "1 to 22 are allowed"),
    ],
)
def test_a_set_that_no_user_could_make_is_not_made(
    london: Site, newark: Site, changed: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(OffsiteError, match=sentence):
        say(london, create_set(**changed))
    assert newark.replication.sets.all() == []
    assert newark.pool.images() == []


def test_a_set_is_not_changed_into_one_that_no_user_could_make(london: Site, newark: Site) -> None:
    request = create_set(members=members(2), **GROUPS)
    say(london, request)
    before = newark.replication.sets.record("SalesDR")
    for settings in (SetSettings(name="S", **HISTORY), SetSettings(name="S", snapshot_basename="b" * 23, **HISTORY)):
        with pytest.raises(BadParameter, match="Newark: "):
            say(london, ChangeSet(generation=1, set_uuid=request.set_uuid, settings=settings))
    assert newark.replication.sets.record("SalesDR") == before


def test_a_volume_of_an_odd_size_is_not_filled(london: Site, newark: Site) -> None:
    request = create_set()
    say(london, request)
    begin = Begin(generation=1, run=RUN, point=RUN, base=None, taken_at=1_700_000_000.0, sizes_bytes=[MIB + 512])
    with pytest.raises(BadParameter, match="sizes are multiples of 4096"):
        say(london, Ask(set_uuid=request.set_uuid, generation=1), begin)
    assert newark.internal_names() == []


def test_a_history_snapshot_is_called_as_a_user_could_have_it_called(london: Site, newark: Site) -> None:
    request = create_set(members=members(2), **GROUPS)
    say(london, request)
    begin = Begin(generation=1, run=RUN, point=RUN, base=None, taken_at=1_700_000_000.0, sizes_bytes=[MIB, MIB])
    end = Batch(sequence=0, position=Position(2, 0), extents=0, data_bytes=0, compression=0, digest=EMPTY_DIGEST)
    history = HistorySnapshot(basename="b" * 26, number=1, count=3, retention_priority="low")
    commit = Commit(generation=1, run=RUN, point=RUN, digest=chain(DIGEST_START, EMPTY_DIGEST), history=history)
    with pytest.raises(BadParameter, match="1 to 22 are allowed for a volume group"):
        say(london, Ask(set_uuid=request.set_uuid, generation=1), begin, end, commit)
    assert [image.name for image in newark.pool.images() if image.kind == "snapshot"] == []


def test_a_peer_is_who_its_certificate_says(london: Site, newark: Site) -> None:
    """Whatever it says in its Hello."""
    other = SystemIdentity(str(uuid.uuid4()), "Paris")
    dialer = Dialer(london.authority, Unintroduced(other), london.replication.peers._clock)
    connection = dialer.dial(newark.address, newark.authority.certificate_der)
    with connection, pytest.raises(PeerRefused, match="says that it is Paris"):
        connection.channel.ask(connection.asking, Ping(), Message)
