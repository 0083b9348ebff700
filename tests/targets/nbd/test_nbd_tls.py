"""TLS with real clients: who must show a certificate, and whom it makes the initiator."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from structlog.testing import capture_logs

from offsite.access.certificates import Authority
from offsite.access.initiator_certificates import InitiatorCertificates
from offsite.targets.common import identity
from offsite.targets.common.server import TargetServer
from offsite.targets.nbd import constants as nbd
from offsite.units import MIB
from tests.targets.nbd.nbd_bench import NbdBench, complaints, until
from tests.targets.nbd.nbd_client import RawClient

LOOPBACK = ("127.0.0.1", 0)


@pytest.fixture
def authority(bench: NbdBench) -> Authority:
    return Authority(bench.directory / "keys", "London", ["127.0.0.1"])


def tcp_address(server: TargetServer) -> tuple[str, int]:
    (address,) = (each for each in server.addresses() if not isinstance(each, Path))
    return address


def certificate_directory(authority: Authority, directory: Path, name: str | None) -> Path:
    """The files of a client as libnbd and qemu look for them."""
    directory.mkdir()
    (directory / "ca-cert.pem").write_bytes(authority.ca_path.read_bytes())
    if name is not None:
        certificate, key = authority.issue(name)
        (directory / "client-cert.pem").write_text(certificate)
        (directory / "client-key.pem").write_text(key)
    return directory


def client_context(directory: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(directory / "ca-cert.pem"))
    if (directory / "client-cert.pem").exists():
        context.load_cert_chain(directory / "client-cert.pem", directory / "client-key.pem")
    return context


def start_tls(client: RawClient, directory: Path) -> None:
    assert client.option(nbd.OPT_STARTTLS) == [(nbd.REP_ACK, b"")]
    client.socket = client_context(directory).wrap_socket(client.socket, server_hostname="127.0.0.1")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_a_client_from_elsewhere_must_use_tls_and_show_a_certificate(
    bench: NbdBench, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole policy on a real socket, with loopback declared to be elsewhere."""
    monkeypatch.setattr(identity, "requires_tls", lambda address: address != identity.UNIX)
    image = bench.volume(access="no-access")
    bench.maps.map(image.id, "tls:db", "read-write")
    server = bench.serve(LOOPBACK, bench.socket_path, authority=authority)
    client = bench.connect(tcp_address(server))
    client.greet()
    assert client.option(nbd.OPT_LIST)[0][0] == nbd.REP_ERR_TLS_REQD
    start_tls(client, certificate_directory(authority, bench.directory / "db", "db"))
    client.haggle("Sales")
    client.write(0, b"over TLS")
    assert client.read(0, 8) == b"over TLS"
    assert server.connections() == [("tls:db", image.id)]
    anonymous = bench.connect(tcp_address(server))
    anonymous.greet()
    with capture_logs() as lines:
        # With TLS 1.3 the client has finished its part before the server sees that there is no certificate.
        with pytest.raises((ssl.SSLError, ConnectionError)):
            start_tls(anonymous, certificate_directory(authority, bench.directory / "anonymous", None))
            anonymous.option(nbd.OPT_LIST)
        until(lambda: bool(complaints(lines)))
    assert "TLS handshake failed" in complaints(lines)[0]["reason"]
    by_unix = bench.connect()
    by_unix.greet()
    assert by_unix.option(nbd.OPT_LIST) == [(nbd.REP_ACK, b"")], "a Unix socket needs no TLS, and a map all the same"


def test_without_an_authority_a_client_from_elsewhere_is_turned_away(
    bench: NbdBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "requires_tls", lambda _address: True)
    server = bench.serve(LOOPBACK)
    with capture_logs() as lines:
        assert bench.connect(tcp_address(server)).is_closed()
        until(lambda: bool(complaints(lines)))
    assert "this server has no certificate" in complaints(lines)[0]["reason"]


def test_on_loopback_tls_is_offered_and_a_certificate_optional(bench: NbdBench, authority: Authority) -> None:
    bench.maps.map(bench.volume().id, "tls:db", "read-only")
    server = bench.serve(LOOPBACK, authority=authority)
    for name, read_only in ((None, False), ("db", True)):
        client = bench.connect(tcp_address(server))
        client.greet()
        start_tls(client, certificate_directory(authority, bench.directory / f"client-{name}", name))
        client.haggle("Sales")
        assert bool(client.flags & nbd.FLAG_READ_ONLY) == read_only
        assert client.read(0, 3 * MIB) == bytes(3 * MIB)
    plain = bench.connect(tcp_address(server))
    plain.go("Sales")
    assert not plain.flags & nbd.FLAG_READ_ONLY


def test_a_certificate_of_another_authority_is_refused(bench: NbdBench, authority: Authority) -> None:
    other = Authority(bench.directory / "other", "Newark", [])
    server = bench.serve(LOOPBACK, authority=authority, force_tls=True)
    directory = certificate_directory(other, bench.directory / "client", "db")
    (directory / "ca-cert.pem").write_bytes(authority.ca_path.read_bytes())
    client = bench.connect(tcp_address(server))
    client.greet()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        start_tls(client, directory)
        client.option(nbd.OPT_LIST)


def test_garbage_and_silence_in_place_of_tls_end_the_connection(bench: NbdBench, authority: Authority) -> None:
    server = bench.serve(LOOPBACK, authority=authority, handshake_seconds=0.5)
    for sent, reason in ((b"x" * 100, "TLS handshake failed"), (b"", "did not finish the TLS handshake within")):
        client = bench.connect(tcp_address(server))
        client.greet()
        assert client.option(nbd.OPT_STARTTLS) == [(nbd.REP_ACK, b"")]
        with capture_logs() as lines:
            client.socket.sendall(sent)
            until(lambda: bool(complaints(lines)))
        assert reason in complaints(lines)[0]["reason"]


def test_a_cold_read_over_tls_does_not_hold_up_the_connection(bench: NbdBench, authority: Authority) -> None:
    """Also when the next requests have been taken off the socket with the last TLS record."""
    bench.volume()
    server = bench.serve(LOOPBACK, authority=authority)
    client = bench.connect(tcp_address(server))
    client.greet()
    start_tls(client, certificate_directory(authority, bench.directory / "db", "db"))
    client.haggle("Sales")
    data = os.urandom(5 * MIB)
    client.write(0, data)
    bench.disk.cold = True
    bench.disk.gate.clear()
    cold = [client.ask(nbd.CMD_READ, offset, 70_000) for offset in range(0, 5 * MIB, 500_000)]
    assert client.run(nbd.CMD_WRITE, 5 * MIB, data=b"meanwhile" * 10_000).error == 0
    bench.disk.gate.set()
    replies = client.replies(*cold)
    assert b"".join(replies[cookie].data for cookie in cold) == b"".join(
        data[offset : offset + 70_000] for offset in range(0, 5 * MIB, 500_000)
    )


def test_a_tls_client_that_takes_no_replies_is_dropped(bench: NbdBench, authority: Authority) -> None:
    bench.volume()
    server = bench.serve(LOOPBACK, authority=authority, send_seconds=0.5)
    client = bench.connect(tcp_address(server))
    client.greet()
    start_tls(client, certificate_directory(authority, bench.directory / "db", "db"))
    client.haggle("Sales")
    with capture_logs() as lines:
        for _ in range(60):
            client.ask(nbd.CMD_READ, 0, MIB)
        until(lambda: bool(complaints(lines)))
    assert "did not accept a reply for" in complaints(lines)[0]["reason"]


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_tls_client_that_just_goes_is_no_event(bench: NbdBench, authority: Authority, how: str) -> None:
    bench.volume()
    server = bench.serve(LOOPBACK, authority=authority)
    client = bench.connect(tcp_address(server))
    client.greet()
    start_tls(client, certificate_directory(authority, bench.directory / "db", "db"))
    client.haggle("Sales")
    with capture_logs() as lines:
        if how == "reset":
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        until(lambda: server.connections() == [])
    assert complaints(lines) == []


def test_disconnect_ends_a_tls_connection_from_another_thread(bench: NbdBench, authority: Authority) -> None:
    image = bench.volume()
    server = bench.serve(LOOPBACK, authority=authority)
    client = bench.connect(tcp_address(server))
    client.greet()
    start_tls(client, certificate_directory(authority, bench.directory / "db", "db"))
    client.haggle("Sales")
    assert server.disconnect(image.id) == 0
    assert client.is_closed()


@pytest.mark.parametrize("when", ["as the socket is handed over", "meanwhile"])
def test_a_connection_in_its_tls_handshake_can_be_cut(
    bench: NbdBench, authority: Authority, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """A client that says nothing there would keep its place until the deadline."""
    server = bench.serve(LOOPBACK, authority=authority)
    client = bench.connect(tcp_address(server))
    client.greet()
    (connection,) = server._connections
    wrap_socket, handed_over = ssl.SSLContext.wrap_socket, threading.Event()

    def wrap(*arguments: Any, **options: Any) -> ssl.SSLSocket:
        wrapped = wrap_socket(*arguments, **options)
        if when != "meanwhile":
            connection.cut(socket.SHUT_RDWR)
        handed_over.set()
        return wrapped

    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", wrap)
    assert client.option(nbd.OPT_STARTTLS) == [(nbd.REP_ACK, b"")]
    assert handed_over.wait(10)
    if when == "meanwhile":
        connection.cut(socket.SHUT_RDWR)
    assert client.is_closed()
    until(lambda: not server._connections)


# -- the clients that people use -------------------------------------------------------------------------------


def uri(server: TargetServer, directory: Path) -> str:
    host, port = tcp_address(server)
    return f"nbds://{host}:{port}/Sales?tls-certificates={directory}"


def qemu_arguments(server: TargetServer, directory: Path) -> list[str]:
    host, port = tcp_address(server)
    return [
        "--object",
        f"tls-creds-x509,id=tls0,endpoint=client,dir={directory}",
        "--image-opts",
        f"driver=nbd,server.type=inet,server.host={host},server.port={port},export=Sales,tls-creds=tls0",
    ]


@pytest.mark.needs("nbdinfo", "nbdcopy", "qemu-img")
def test_libnbd_and_qemu_take_the_certificates(bench: NbdBench, authority: Authority) -> None:
    """GnuTLS and qemu check key usages and names each in their own way."""
    image = bench.volume(access="no-access")
    bench.maps.map(image.id, "tls:db", "read-write")
    server = bench.serve(LOOPBACK, authority=authority, force_tls=True)
    directory = certificate_directory(authority, bench.directory / "db", "db")
    found = run("nbdinfo", uri(server, directory))
    assert "protocol: newstyle-fixed with TLS" in found.stdout, found.stderr
    assert "export-size: 8388608" in found.stdout
    source = bench.directory / "source"
    source.write_bytes(os.urandom(image.size_bytes))
    assert run("nbdcopy", source, uri(server, directory)).returncode == 0
    assert bench.content(image) == source.read_bytes()
    compared = run("qemu-img", "info", *qemu_arguments(server, directory))
    assert "virtual size: 8 MiB" in compared.stdout, compared.stderr


@pytest.mark.needs("nbdinfo", "qemu-img")
def test_libnbd_and_qemu_are_refused_without_a_certificate_or_a_map(bench: NbdBench, authority: Authority) -> None:
    bench.maps.map(bench.volume(access="no-access").id, "tls:db", "read-write")
    server = bench.serve(LOOPBACK, authority=authority, force_tls=True)
    host, port = tcp_address(server)
    plain = run("nbdinfo", f"nbd://{host}:{port}/Sales")
    assert plain.returncode != 0
    assert "export-size" not in plain.stdout
    anonymous = certificate_directory(authority, bench.directory / "anonymous", None)
    assert run("nbdinfo", uri(server, anonymous)).returncode != 0
    other = certificate_directory(authority, bench.directory / "other", "other")
    refused = run("nbdinfo", uri(server, other))
    assert refused.returncode != 0
    assert "no export 'Sales'" in refused.stderr or "No such" in refused.stderr
    assert run("qemu-img", "info", *qemu_arguments(server, other)).returncode != 0


def test_many_tls_clients_at_once_keep_their_bytes_apart(bench: NbdBench, authority: Authority) -> None:
    bench.volume()
    server = bench.serve(LOOPBACK, authority=authority)
    directory = certificate_directory(authority, bench.directory / "db", "db")
    failures: list[Any] = []

    def use(number: int) -> None:
        client = RawClient(tcp_address(server))
        try:
            client.greet()
            start_tls(client, directory)
            client.haggle("Sales")
            for _ in range(10):
                data = os.urandom(100_000)
                client.write(number * MIB, data)
                if client.read(number * MIB, len(data)) != data:
                    failures.append(number)
        except Exception as error:  # noqa: BLE001 - told by the test below
            failures.append(error)
        finally:
            client.close()

    threads = [threading.Thread(target=use, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []


def test_a_revoked_certificate_is_refused_and_who_is_connected_with_it_is_cut(
    bench: NbdBench, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "requires_tls", lambda address: address != identity.UNIX)
    image = bench.volume(access="no-access")
    for name in ("db", "web"):
        bench.maps.map(image.id, f"tls:{name}", "read-write")
    record = InitiatorCertificates(bench.maps._database)
    server = bench.serve(LOOPBACK, authority=authority, certificates=record)
    directories = {
        name: certificate_directory(authority, bench.directory / name, name.partition(".")[0])
        for name in ("db.1", "db.2", "web")
    }

    def connected(name: str) -> RawClient:
        client = bench.connect(tcp_address(server))
        client.greet()
        start_tls(client, directories[name])
        client.haggle("Sales")
        return client

    clients = {name: connected(name) for name in directories}
    assert len(record.all()) == 3, "those of an older version are on record once they were seen"
    revoked = (directories["db.1"] / "client-cert.pem").read_bytes()
    record.revoke(f"{x509.load_pem_x509_certificate(revoked).serial_number:x}", 9.0)
    assert server.recheck() == 0
    assert clients["db.1"].is_closed()
    assert sorted(server.connections()) == [("tls:db", image.id), ("tls:web", image.id)]
    with capture_logs() as lines:
        with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
            connected("db.1")
        until(lambda: bool(complaints(lines)))
    assert "was revoked" in complaints(lines)[0]["reason"]
    connected("db.2")
    record.revoke_all("db", 9.0)
    server.recheck()
    assert server.connections() == [("tls:web", image.id)]
    assert clients["web"].read(0, 8) == bytes(8)


def test_a_certificate_revoked_during_the_handshake_does_not_get_in(bench: NbdBench, authority: Authority) -> None:
    bench.volume()
    record = InitiatorCertificates(bench.maps._database)
    server = bench.serve(LOOPBACK, authority=authority, certificates=record)
    client = bench.connect(tcp_address(server))
    client.greet()
    start_tls(client, certificate_directory(authority, bench.directory / "db", "db"))
    assert client.option(nbd.OPT_LIST)
    record.revoke_all("db", 9.0)
    with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
        client.haggle("Sales")
    until(lambda: server.connections() == [])
