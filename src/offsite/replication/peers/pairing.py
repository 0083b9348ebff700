"""What is said when two systems are made peers, by the one who asks."""

from __future__ import annotations

from dataclasses import dataclass, field

from offsite.errors import CertificateChanged
from offsite.replication.link.dialer import DialedConnection
from offsite.replication.link.identity import fingerprint_of, same_fingerprint
from offsite.replication.wire.messages import Done, Pair, Ping

_ANYWHERE = ("", "0.0.0.0", "::")


@dataclass(frozen=True)
class Login:
    """A manage user of the other system. With a fingerprint, only a system whose certificate has it is asked."""

    username: str
    password: str = field(repr=False)
    fingerprint: str | None = None


def check_fingerprint(connection: DialedConnection, address: str, login: Login) -> None:
    """Raises CertificateChanged when the system that answers has another one than was expected."""
    shown = fingerprint_of(connection.certificate)
    if login.fingerprint is not None and not same_fingerprint(login.fingerprint, shown):
        raise CertificateChanged(
            f"{address} shows a certificate with the fingerprint {shown}, but {login.fingerprint} is expected; the "
            "password was not sent"
        )


def ask_to_pair(
    connection: DialedConnection,
    login: Login,
    certificate: bytes,
    own_address: tuple[str, int],
    *,
    replace: bool = False,
) -> None:
    """Shows the login to the other system, which pins our `certificate` (DER), or says why not.

    With `replace` it does so also when it has pinned another one for us before.
    """
    host, port = own_address
    pair = Pair(
        username=login.username,
        password=login.password,
        certificate=certificate,
        host="" if host in _ANYWHERE else host,
        port=port,
        replace=replace,
    )
    connection.channel.ask(connection.asking, pair, Done)


def ping(connection: DialedConnection) -> None:
    """Sees that the other system knows us. Raises NotPaired when it does not."""
    connection.channel.ask(connection.asking, Ping(), Done)
