"""Who must use TLS, and by which name an initiator goes."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from offsite.access.certificates import Authority
from offsite.errors import NotAllowed
from offsite.targets.common.identity import UNIX, checked_claim, is_proven, of_certificate, requires_tls


@pytest.mark.parametrize("address", [UNIX, "127.0.0.1", "127.0.0.2", "127.255.255.254", "::1", "::ffff:127.0.0.1"])
def test_what_stays_on_this_machine_may_do_without_tls(address: str) -> None:
    assert not requires_tls(address)


NETWORK = ["10.0.0.1", "192.0.2.7", "0.0.0.0", "126.255.255.255", "128.0.0.1"]
NETWORK_6 = ["2001:db8::1", "fe80::1%eth0", "::ffff:192.0.2.7"]


@pytest.mark.parametrize("address", NETWORK + NETWORK_6)
def test_everyone_else_needs_tls(address: str) -> None:
    assert requires_tls(address)


def test_an_initiator_goes_by_its_certificate(tmp_path: Path) -> None:
    certificate, _ = Authority(tmp_path / "keys", "London", []).issue("db host 7")
    der = ssl.PEM_cert_to_DER_cert(certificate)
    assert of_certificate(der) == "tls:db host 7"
    assert of_certificate(None) is None
    assert is_proven("tls:db host 7")
    assert not is_proven("nbd:192.0.2.7")


@pytest.mark.parametrize("claim", ["tls:db", "nbd:unix", "iqn", "iqn.", ""])
def test_no_client_gives_itself_an_id_of_another_kind(claim: str) -> None:
    assert checked_claim("iqn.2026-11.com.example:db", "iqn.") == "iqn.2026-11.com.example:db"
    with pytest.raises(NotAllowed, match="does not begin with iqn\\."):
        checked_claim(claim, "iqn.")
