"""Commands about maps, initiators and their certificates."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from offsite.access import nicknames
from offsite.errors import BadParameter, InitiatorNotFound, InUse, LunInUse, MapNotFound, NameInUse, VolumeNotFound
from tests.management.management_bench import Bench


@pytest.fixture
def volumes(bench: Bench) -> Bench:
    for name in ("Sales", "Other"):
        bench.do(f"create volume pool A size 1MiB {name}")
    return bench


def maps(bench: Bench) -> list[tuple[object, ...]]:
    told = ("identifier", "nickname", "access", "lun")
    views = bench.rows("show maps")
    return [(view["volume-name"], *(part[name] for name in told)) for view in views for part in view.parts]


def test_the_default_map_serves_everyone_and_maps_of_their_own_go_before(volumes: Bench) -> None:
    volumes.do("map volume Sales")
    volumes.do("map volume access no-access initiator tls:web1 Sales")
    assert maps(volumes) == [
        ("Sales", "all other initiators", "", "read-write", ""),
        ("Sales", "tls:web1", "", "no-access", ""),
    ]
    assert volumes.target.rechecks == 2, "who lost access is disconnected"


def test_several_volumes_get_rising_luns(volumes: Bench) -> None:
    volumes.do("map volume initiator tls:web1,nbd:192.0.2.1 lun 5 access ro Sales,Other")
    assert [(each[0], each[1], each[4]) for each in maps(volumes)] == [
        ("Other", "nbd:192.0.2.1", "6"),
        ("Other", "tls:web1", "6"),
        ("Sales", "nbd:192.0.2.1", "5"),
        ("Sales", "tls:web1", "5"),
    ]


def test_several_maps_are_made_together_or_not_at_all(volumes: Bench) -> None:
    volumes.do("map volume initiator tls:web1 lun 6 Other")
    error = volumes.refused("map volume initiator tls:web2,tls:web1 lun 6 Sales", LunInUse, "LUN 6")
    assert error.code == -3177, "clients of ME4 try the next LUN then"
    volumes.refused("map volume initiator tls:web1 lun 1023 Sales,Other", BadParameter, "1023")
    volumes.refused("map volume Sales,Nope", VolumeNotFound, "'Nope'")


def test_unmap_takes_away_what_is_named_or_says_that_it_is_not_there(volumes: Bench) -> None:
    volumes.do("map volume Sales")
    volumes.do("map volume initiator tls:web1 Sales")
    volumes.refused("unmap volume Sales,Other", MapNotFound, "volume Other is not mapped to everyone")
    volumes.refused("unmap volume initiator tls:web2 Sales", MapNotFound, "tls:web2")
    volumes.do("unmap volume initiator tls:web1 Sales")
    volumes.do("unmap volume Sales")
    assert maps(volumes) == []


def test_a_nickname_stands_for_an_initiator(volumes: Bench) -> None:
    volumes.do("set initiator id nbd:192.0.2.7 nickname web7")
    volumes.do("map volume initiator web7 Sales")
    assert maps(volumes) == [("Sales", "nbd:192.0.2.7", "web7", "read-write", "")]
    (row,) = volumes.rows("show initiators")
    assert row.values == ("nbd:192.0.2.7", "web7", None, True)
    volumes.do("set initiator id web7 nickname web8")
    volumes.do("delete initiator-nickname web8")
    assert maps(volumes) == [("Sales", "nbd:192.0.2.7", "", "read-write", "")]


def test_bad_nicknames_are_refused(volumes: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    volumes.do("set initiator id nbd:192.0.2.7 nickname web7")
    volumes.refused("set initiator id nbd:192.0.2.8 nickname web7", NameInUse, "'web7'", "nbd:192.0.2.7")
    volumes.refused("set initiator id nbd:192.0.2.8 nickname nbd:192.0.2.7", NameInUse, "nbd:192.0.2.7")
    volumes.refused("set initiator id nbd:192.0.2.8 nickname a,b", BadParameter, "','")
    volumes.refused("set initiator id somewhere nickname web8", InitiatorNotFound, "'somewhere'")
    volumes.refused("delete initiator-nickname web8", InitiatorNotFound, "'web8'")
    monkeypatch.setattr(nicknames, "NICKNAMES_MAX", 1)
    volumes.refused("set initiator id nbd:192.0.2.8 nickname web8", InUse, "which is the maximum")


@pytest.mark.parametrize("name", ["nobody", "tls:", "nbd:", "web1"])
def test_an_initiator_that_is_neither_known_nor_an_id_is_refused(volumes: Bench, name: str) -> None:
    error = volumes.refused(f"map volume initiator {name} Sales", InitiatorNotFound, repr(name))
    assert error.code == -10386


def test_a_certificate_is_for_its_initiator_and_signed_by_this_system(volumes: Bench) -> None:
    (row,) = volumes.rows("create initiator-certificate web1")
    assert row["id"] == "tls:web1"
    certificate = x509.load_pem_x509_certificate(str(row["certificate"]).encode())
    ca = x509.load_pem_x509_certificate(str(row["ca-certificate"]).encode())
    certificate.verify_directly_issued_by(ca)
    key = load_pem_private_key(str(row["private-key"]).encode(), None)
    assert key.public_key() == certificate.public_key()
    assert all(str(row["private-key"]) not in str(each["message"]) for each in volumes.rows("show events"))
