"""Trust in remote systems: the first certificate is written down, another one later is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from offsite.errors import BadParameter, CertificateChanged
from offsite.interfaces.known_systems import TrustFile, TrustFirst, default_path

OURS, OTHER = b"certificate", b"another certificate"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config" / "offsite" / "known_systems"


def test_the_first_certificate_is_told_and_written_down(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    TrustFirst(path).check("london:8443", OURS)
    digest = hashlib.sha256(OURS).hexdigest()
    assert path.read_text() == f"london:8443 {digest}\n"
    assert digest in capsys.readouterr().err
    TrustFirst(path).check("london:8443", OURS)
    assert capsys.readouterr().err == ""


def test_another_certificate_later_is_refused_and_the_first_stays(path: Path) -> None:
    TrustFirst(path).check("london:8443", OURS)
    before = path.read_text()
    with pytest.raises(CertificateChanged) as refusal:
        TrustFirst(path).check("london:8443", OTHER)
    for part in (hashlib.sha256(OURS).hexdigest(), hashlib.sha256(OTHER).hexdigest(), str(path), "Nothing was sent"):
        assert part in str(refusal.value)
    assert path.read_text() == before


def test_each_port_of_each_host_has_a_certificate_of_its_own(path: Path) -> None:
    for place, certificate in (("london:8443", OURS), ("london:9443", OTHER), ("newark:8443", OTHER)):
        TrustFirst(path).check(place, certificate)
    assert len(path.read_text().splitlines()) == 3


def test_a_damaged_file_is_refused_rather_than_believed(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("london:8443 not-a-digest\n")
    with pytest.raises(BadParameter, match="line 1 of"):
        TrustFirst(path).check("london:8443", OURS)


def test_a_file_that_is_no_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadParameter, match="PEM"):
        TrustFile(tmp_path / "absent.pem")
    (tmp_path / "text.pem").write_text("hello")
    with pytest.raises(BadParameter, match="PEM"):
        TrustFile(tmp_path / "text.pem")


def test_the_file_lies_where_the_user_keeps_configuration() -> None:
    assert default_path({"XDG_CONFIG_HOME": "/x"}) == Path("/x/offsite/known_systems")
    assert default_path({}) == Path.home() / ".config" / "offsite" / "known_systems"
