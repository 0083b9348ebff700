"""Pairing and the peer port, over real sockets on loopback."""

from __future__ import annotations

import errno
import socket
import ssl
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from offsite import events
from offsite.access.certificates import Authority
from offsite.admission import STRANGERS_OF_NETWORK_MAX
from offsite.clock import SystemClock
from offsite.errors import (
    AuthenticationFailed,
    BadParameter,
    CertificateChanged,
    InUse,
    NameInUse,
    NoPlace,
    ObjectNotFound,
    PeerRefused,
    PeerUnreachable,
)
from offsite.replication.link.dialer import Dialer
from offsite.replication.link.identity import SystemIdentity, fingerprint_of
from offsite.replication.records import peer_records
from offsite.replication.wire import frames
from offsite.replication.wire.messages import DeleteSet, Done, Hello, Pair, Ping
from tests.replication.sites import PASSWORD, Site, Unintroduced, pair


def no_peers(*sites: Site) -> bool:
    return all(not site.replication.peers.all() for site in sites)


def test_pairing_pins_both_certificates(london: Site, newark: Site) -> None:
    peer = london.replication.peers.create("East", newark.address, "manage", PASSWORD)
    assert (peer.name, peer.system_name, peer.address) == ("East", "Newark", newark.address)
    assert peer.fingerprint == newark.authority.fingerprint
    (back,) = newark.replication.peers.all()
    assert (back.name, back.fingerprint, back.address) == ("London", london.authority.fingerprint, london.address)
    assert london.replication.peers.online("East")
    assert newark.replication.peers.online("London")
    assert [kind for kind, _ in london.events] == [events.PEER_CREATED]
    assert [kind for kind, _ in newark.events] == [events.PEER_CREATED]


def test_a_query_tells_who_is_there_and_changes_nothing(london: Site, newark: Site) -> None:
    remote = london.replication.peers.query(newark.address)
    assert (remote.name, remote.uuid) == ("Newark", newark.identity.uuid)
    assert remote.fingerprint == newark.authority.fingerprint
    assert remote.version.startswith("Offsite ")
    assert no_peers(london, newark)


def test_a_wrong_password_is_refused(london: Site, newark: Site) -> None:
    with pytest.raises(AuthenticationFailed, match=r"Newark: user 'manage' does not exist, has another password"):
        london.replication.peers.create("Newark", newark.address, "manage", "wrong-Password-1")
    assert no_peers(london, newark)


def test_passwords_are_checked_by_the_users_of_the_system_and_told_where_they_come_from(
    london: Site, newark: Site
) -> None:
    """There are the limits on guessing, the same for every way in."""
    newark.logins_refused = "too many logins from 127.0.0.1 failed"
    with pytest.raises(AuthenticationFailed, match=newark.logins_refused):
        london.replication.peers.create("Newark", newark.address, "manage", PASSWORD)
    assert newark.asked == [("manage", PASSWORD, "127.0.0.1")]
    assert no_peers(london, newark)


def test_the_password_is_not_sent_to_a_system_with_another_fingerprint(london: Site, newark: Site) -> None:
    with pytest.raises(CertificateChanged, match="the password was not sent") as refused:
        london.replication.peers.create("Newark", newark.address, "manage", "wrong", "ab" * 32)
    assert newark.authority.fingerprint in str(refused.value) and "ab" * 32 in str(refused.value)
    assert newark.events == [], "a password would have been found wrong"
    written = ":".join(newark.authority.fingerprint.upper()[i : i + 2] for i in range(0, 64, 2))
    london.replication.peers.create("Newark", newark.address, "manage", PASSWORD, written)


def test_a_certificate_that_changed_is_not_spoken_to(london: Site, newark: Site) -> None:
    pair(london, newark)
    old = newark.authority.fingerprint
    newark.replication.stop()
    newark.authority = Authority(newark.directory / "other-keys", "Newark", ["127.0.0.1"])
    newark.open()
    newark.start()
    with pytest.raises(CertificateChanged) as changed:
        london.replication.peers.connect(london.replication.peers.record("Newark"))
    assert old in str(changed.value) and newark.authority.fingerprint in str(changed.value)
    assert not london.replication.peers.online("Newark")
    with pytest.raises(PeerRefused, match="does not know this system's certificate"):
        newark.replication.peers.connect(newark.replication.peers.record("London"))


def test_pairing_anew_does_not_replace_a_pinned_certificate(london: Site, newark: Site) -> None:
    """A password alone must not be enough to take the place of a peer."""
    pair(london, newark)
    with london.database.transaction() as connection:
        connection.exec_driver_sql("DELETE FROM peers")
    london.replication.stop()
    london.authority = Authority(london.directory / "other-keys", "London", ["127.0.0.1"])
    london.open()
    london.start()
    with pytest.raises(CertificateChanged, match="delete peer connection London first"):
        pair(london, newark)


def test_pairing_repeated_after_a_crash_in_between_is_harmless(london: Site, newark: Site) -> None:
    """Newark has pinned London; London stopped before it had pinned Newark."""
    pair(london, newark)
    with london.database.transaction() as connection:
        connection.exec_driver_sql("DELETE FROM peers")
    pair(london, newark)
    assert len(newark.replication.peers.all()) == len(london.replication.peers.all()) == 1


def test_what_is_refused_before_anything_is_sent(london: Site, newark: Site) -> None:
    create = london.replication.peers.create
    with pytest.raises(BadParameter, match="peer connection name"):
        create("a,b", newark.address, "manage", PASSWORD)
    with pytest.raises(BadParameter, match="is this system's own"):
        create("Self", london.address, "manage", PASSWORD)
    for address in ("", "host:0", "host:x", "host:70000", "h" * 256):
        with pytest.raises(BadParameter, match="is not HOST"):
            create("Newark", address, "manage", PASSWORD)
    pair(london, newark)
    with pytest.raises(NameInUse, match="'Newark'"):
        create("Newark", newark.address, "manage", PASSWORD)
    with pytest.raises(InUse, match="already connected as peer connection Newark"):
        create("Other", newark.address, "manage", PASSWORD)
    with pytest.raises(ObjectNotFound, match="'Paris'"):
        london.replication.peers.get("Paris")


def test_nobody_there(london: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as placeholder:
        port = placeholder.getsockname()[1]
    with pytest.raises(PeerUnreachable, match=f"cannot reach 127.0.0.1:{port}: Connection refused"):
        london.replication.peers.create("Newark", f"127.0.0.1:{port}", "manage", PASSWORD)


def test_someone_there_who_speaks_something_else(london: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            client = server.accept()[0]
            client.recv(100)
            client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            client.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(PeerUnreachable, match="the TLS handshake failed"):
            london.replication.peers.query(f"127.0.0.1:{server.getsockname()[1]}")
        thread.join(5)


def test_a_peer_that_does_not_answer_is_a_time_out_of_so_many_seconds(
    london: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator sees that it is one, and how long it waited."""

    def wait_in_vain(_address: object, timeout: float) -> socket.socket:
        assert timeout > 0
        raise TimeoutError("timed out")

    monkeypatch.setattr("socket.create_connection", wait_in_vain)
    with pytest.raises(PeerUnreachable, match=r"cannot reach 192\.0\.2\.1:7443: timeout: no answer within \d+ s"):
        london.replication.peers.query("192.0.2.1:7443")


def test_a_second_system_of_the_same_name_is_refused(london: Site, newark: Site, tmp_path: Path) -> None:
    pair(london, newark)
    twin = Site(tmp_path / "twin", "London")
    twin.authority = Authority(tmp_path / "twin-keys", "London", ["127.0.0.1"])
    twin.open()
    twin.start()
    with pytest.raises(NameInUse, match="Newark: the peer connection 'London' there is to another system"):
        pair(twin, newark)
    twin.stop()


def ask_to_pair(site: Site, identity: SystemIdentity, to: Site, certificate: bytes) -> None:
    message = Pair(username="manage", password=PASSWORD, certificate=certificate, host="", port=1)
    with Dialer(site.authority, Unintroduced(identity), SystemClock()).dial(to.address) as connection:
        connection.channel.ask(connection.asking, message, Done)


def test_a_certificate_that_another_peer_has_is_refused(london: Site, newark: Site) -> None:
    pair(london, newark)
    other = SystemIdentity("o" * 36, "Other")
    with pytest.raises(InUse, match="peer connection London already has this certificate"):
        ask_to_pair(london, other, newark, london.authority.certificate_der)


def test_a_copy_of_this_very_system_is_refused(london: Site, newark: Site) -> None:
    """Someone copied a state directory."""
    with pytest.raises(BadParameter, match="it is a copy of it"):
        ask_to_pair(london, newark.identity, newark, london.authority.certificate_der)


@pytest.mark.parametrize("certificate", [b"junk", b"\x30\x82"])
def test_a_certificate_that_is_none_does_not_close_the_port(london: Site, newark: Site, certificate: bytes) -> None:
    with pytest.raises(PeerRefused, match="invalid certificate"):
        ask_to_pair(london, london.identity, newark, certificate)
    pair(london, newark)


def test_deleting_ends_it_on_both(london: Site, newark: Site) -> None:
    pair(london, newark)
    london.replication.peers.delete("Newark")
    assert no_peers(london, newark)
    assert london.events[-1][0] is newark.events[-1][0] is events.PEER_DELETED


def test_deleting_here_alone_and_then_over_there(london: Site, newark: Site) -> None:
    """The other system's delete finds that it is forgotten already, and is content."""
    pair(london, newark)
    london.replication.peers.delete("Newark", local_only=True)
    assert no_peers(london) and not no_peers(newark)
    newark.replication.peers.delete("London")
    assert no_peers(newark)


def test_deleting_needs_the_peer_unless_local(london: Site, newark: Site) -> None:
    pair(london, newark)
    newark.replication.stop()
    with pytest.raises(PeerUnreachable):
        london.replication.peers.delete("Newark")
    assert len(london.replication.peers.all()) == 1
    newark.open()
    newark.start()


def test_a_peer_that_sets_need_cannot_be_deleted_from_either_side(london: Site, newark: Site) -> None:
    pair(london, newark)
    london.create_set("SalesDR", london.create_volume("Sales", 65536), "Newark")
    with pytest.raises(InUse, match="used by replication sets SalesDR"):
        london.replication.peers.delete("Newark")
    with pytest.raises(InUse, match="used by replication sets SalesDR"):
        newark.replication.peers.delete("London")
    with london.database.transaction() as connection:
        connection.exec_driver_sql("DELETE FROM replication_sets")
    with pytest.raises(InUse, match="Newark: replication sets SalesDR use"):
        london.replication.peers.delete("Newark")


def raw_tls(site: Site) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(socket.create_connection(("127.0.0.1", site.port), timeout=10))


def ends(sock: socket.socket) -> bool:
    """Whether the other side ends the connection, whatever it says before."""
    sock.settimeout(10)
    try:
        while sock.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True  # with an alert of TLS, or a reset
    return True


def test_garbage_on_the_port_ends_that_connection_and_no_other(london: Site, newark: Site) -> None:
    with socket.create_connection(("127.0.0.1", newark.port)) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(1000))
        assert ends(plain)
    hello = frames.encode(Hello(version=1, system_uuid="u" * 36, system_name="Mallory", software=""))
    for garbage in (
        b"\xff" * 100,
        frames.MAGIC + b"\xff" * 8,
        frames.encode(Ping()),
        hello + frames.encode(Ping()),
        hello[:20],
    ):
        with raw_tls(newark) as sock:
            sock.sendall(garbage)
            socket.socket.shutdown(sock, socket.SHUT_WR)
            assert ends(sock)
    pair(london, newark)


def test_a_stranger_may_only_pair(newark: Site, london: Site) -> None:
    dialer = Dialer(london.authority, Unintroduced(london.identity), SystemClock())
    with dialer.dial(newark.address) as connection, pytest.raises(PeerRefused, match="a Ping requires a certificate"):
        connection.channel.ask(connection.asking, Ping(), Done)


def test_a_stranger_who_says_nothing_is_put_out(newark: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offsite.replication.inbound.session.STRANGER_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", newark.port)) as silent:
        assert ends(silent)
    with raw_tls(newark) as sock:
        sock.sendall(b"O")  # a byte now and then must not keep it open either
        assert ends(sock)


def silent_at(newark: Site, address: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", newark.port), 10, (address, 0))


def test_many_who_say_nothing_do_not_take_all_memory(newark: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offsite.admission.PATIENCE_SECONDS", 60.0)
    with ExitStack() as stack:
        silent = [stack.enter_context(silent_at(newark, "127.0.0.2")) for _ in range(STRANGERS_OF_NETWORK_MAX + 1)]
        assert ends(silent[-1]), "one too many is not let in"


def pings(london: Site, newark: Site) -> bool:
    with london.database.read() as connection:
        (record,) = peer_records.all_peers(connection)
    dialer = Dialer(london.authority, london.replication.introductions, SystemClock())
    with dialer.dial(newark.address, record.certificate) as connected:
        connected.channel.ask(connected.asking, Ping(), Done)
    return True


def test_strangers_who_say_nothing_keep_no_peer_out(
    london: Site, newark: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not those of four other addresses, and not those at the address of the peer itself."""
    monkeypatch.setattr("offsite.admission.PATIENCE_SECONDS", 0.0)
    pair(london, newark)
    with ExitStack() as stack:
        for last in (1, 2, 3, 4, 5):
            for _ in range(STRANGERS_OF_NETWORK_MAX):
                stack.enter_context(silent_at(newark, f"127.0.0.{last}"))
        for _ in range(3):
            assert pings(london, newark)


def test_a_peer_for_which_there_is_no_place_is_told_so(
    london: Site, newark: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair(london, newark)
    monkeypatch.setattr("offsite.replication.service.SESSIONS_MAX", 0)
    with pytest.raises(NoPlace, match="Newark: the maximum of connections to the peer port is reached: 0"):
        pings(london, newark)


def test_a_connection_that_gets_no_thread_leaves_its_place(
    london: Site, newark: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair(london, newark)
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("peer-127"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with ExitStack() as stack:
        for _ in range(STRANGERS_OF_NETWORK_MAX + 1):
            assert ends(stack.enter_context(silent_at(newark, "127.0.0.1")))
    monkeypatch.undo()
    assert pings(london, newark)


def test_a_system_too_old_is_refused(newark: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offsite.replication.inbound.session.VERSION_OLDEST", 2)
    with raw_tls(newark) as sock:
        sock.sendall(frames.encode(Hello(version=1, system_uuid="u" * 36, system_name="Old", software="")))
        sock.settimeout(10)
        answer = b""
        while b"too old" not in answer:
            part = sock.recv(4096)
            assert part, "it says why before it ends"
            answer += part


def test_our_side_refuses_a_system_too_old(london: Site, newark: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offsite.replication.link.dialer.VERSION_OLDEST", 2)
    with pytest.raises(PeerRefused, match="speaks version 1; 2 or newer is required"):
        london.replication.peers.query(newark.address)


def test_a_peer_that_was_deleted_meanwhile_is_not_served_on(london: Site, newark: Site) -> None:
    pair(london, newark)
    with london.replication.peers.connect(london.replication.peers.record("Newark")) as connection:
        newark.replication.peers.delete("London", local_only=True)
        request = DeleteSet(generation=1, set_uuid="0" * 36)
        with pytest.raises(PeerRefused, match="deleted here"):
            connection.channel.ask(connection.asking, request, Done)


def test_fingerprints_are_of_the_certificate(london: Site) -> None:
    assert fingerprint_of(london.authority.certificate_der) == london.authority.fingerprint


def test_a_port_that_cannot_accept_for_a_moment_goes_on(newark: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of descriptors, for one."""
    accept, failures = socket.socket.accept, 2

    def fail_twice(self: socket.socket) -> tuple[socket.socket, object]:
        nonlocal failures
        if failures and self.getsockname()[1] == newark.port:
            failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(self)

    monkeypatch.setattr("socket.socket.accept", fail_twice)
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", newark.port)) as plain:
            plain.sendall(b"x" * 100)
            assert ends(plain)
    assert failures == 0


def test_someone_who_is_gone_before_being_let_in(newark: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_raw: socket.socket) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    with monkeypatch.context() as broken:
        broken.setattr("offsite.replication.inbound.listener.prepare_socket", gone)
        with socket.create_connection(("127.0.0.1", newark.port)) as plain:
            assert ends(plain)
    with socket.create_connection(("127.0.0.1", newark.port)) as plain:
        plain.sendall(b"x" * 100)
        assert ends(plain), "the port still listens"


def test_an_answer_to_whether_a_peer_is_there_holds_good_for_a_while(london: Site, newark: Site) -> None:
    pair(london, newark)
    assert london.replication.peers.online("Newark")
    newark.replication.stop()
    assert london.replication.peers.online("Newark"), "a few seconds old"
    london.replication.peers.reachability.forget()
    assert not london.replication.peers.online("Newark")
    newark.open()
    newark.start()


def test_a_port_that_is_taken_is_told_and_can_be_stopped(newark: Site, tmp_path: Path) -> None:
    other = Site(tmp_path / "other", "Other")
    other.port = newark.port
    other.open()
    with pytest.raises(OSError, match="Address already in use"):
        other.start()
    other.stop()
