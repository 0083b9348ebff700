"""Peer connections: create, query, set, delete, show."""

from __future__ import annotations

from dataclasses import dataclass

from offsite.errors import BadParameter
from offsite.management.command_table import properties, values
from offsite.management.command_table.answers import PEER_ERRORS
from offsite.management.command_table.command import Needs, Role, Subject, flag, keyword, positional, secret
from offsite.management.command_table.object_types import ObjectType, Row
from offsite.management.command_table.reply import Question, Reply
from offsite.management.command_table.value_parser import parse
from offsite.management.command_table.values import ValueKind
from offsite.management.commands.enumerations import CONNECTION_STATUS
from offsite.management.system import Context, System
from offsite.replication.bandwidth.calendar import (
    CHARACTERS_MAX,
    BandwidthCalendar,
    format_rate,
    parse_calendar,
    parse_rate,
)
from offsite.replication.peers.incarnation_records import RefusedStart
from offsite.replication.peers.modification import NO_LIMIT, PeerChange
from offsite.replication.peers.pairing import Login
from offsite.replication.peers.peers import Peer, RemoteSystem
from offsite.units import format_instant, format_size

COMMANDS = Subject("Peer connections")


@dataclass(frozen=True, slots=True)
class PeerView:
    peer: Peer
    is_online: bool

    @property
    def refused(self) -> RefusedStart | None:
        """The older or second copy of it that was refused."""
        return self.peer.incarnation.refused

    @property
    def clock(self) -> str:
        """Nothing where the clocks agree within a second."""
        skew = self.peer.contact.skew
        return "" if skew is None or not skew.is_beyond(SHOWN_FROM_SECONDS) else str(skew)

    @property
    def ahead_seconds(self) -> float | None:
        """By which its clock is; none: not known."""
        return None if self.peer.contact.skew is None else round(self.peer.contact.skew.seconds, 3)

    @property
    def remote_start(self) -> str:
        """The newest start of it that was met."""
        newest = self.peer.incarnation.known.newest
        return "" if newest is None else str(newest)

    @property
    def error(self) -> str:
        refused, own = self.refused, self.peer.incarnation.own_refusal
        if refused is not None:
            return (
                f"{refused.verdict.value} copy of the system was refused: start {refused.start}; accepted is start "
                f"{self.peer.incarnation.known.newest}; choose with accept-incarnation"
            )
        if own is not None:
            return f"the peer refuses this system ({own.verdict.value} copy); it accepts start {own.taken}"
        return ""


PEER = ObjectType[PeerView](
    "peer-connections",
    "peer-connection",
    (
        properties.text("peer-connection-name", lambda view: view.peer.name, "Name", key=True),
        properties.enumeration(
            "connection-status", CONNECTION_STATUS, lambda view: "Online" if view.is_online else "Offline", "Status"
        ),
        properties.text("remote-system-name", lambda view: view.peer.system_name, "System"),
        properties.text("remote-host-port-address", lambda view: view.peer.address, "Address"),
        properties.text(
            "bandwidth-limit",
            lambda view: format_rate(view.peer.bandwidth_limit),
            "Limit",
            twin=lambda view: view.peer.bandwidth_limit,
            unit="bytes per second",
        ),
        properties.text("bandwidth-calendar", lambda view: view.peer.bandwidth_calendar or "none", "Calendar"),
        properties.text(
            "bandwidth-limit-now",
            lambda view: format_rate(view.peer.limit_now),
            "Limit now",
            twin=lambda view: view.peer.limit_now,
            unit="bytes per second",
        ),
        properties.text(
            "clock-skew",
            lambda view: view.clock,
            "Clock",
            seldom=True,
            twin=lambda view: view.ahead_seconds,
            unit="seconds",
        ),
        properties.text(
            "secondary-sets", lambda view: "enabled" if view.peer.secondary_sets else "disabled", "Secondary sets"
        ),
        properties.text(
            "secondary-size-limit",
            lambda view: format_size(view.peer.secondary_size_limit) if view.peer.secondary_size_limit else "none",
            twin=lambda view: view.peer.secondary_size_limit,
            unit="bytes",
        ),
        properties.text("error", lambda view: view.error, "Error", seldom=True),
        properties.text("remote-certificate-fingerprint", lambda view: view.peer.fingerprint),
        properties.text("remote-system-serial", lambda view: view.peer.system_uuid),
        properties.text("connection-type", lambda _: "TLS"),
        properties.time("gone-since", lambda view: view.peer.contact.gone_since),
        properties.text("remote-start", lambda view: view.remote_start),
        properties.time("remote-start-time", lambda view: view.peer.incarnation.started_at),
        properties.text("refused-start", lambda view: str(view.refused.start) if view.refused else ""),
        properties.time("refused-start-time", lambda view: view.refused.started_at if view.refused else None),
        properties.time("refused-since", lambda view: view.refused.since if view.refused else None),
        properties.time("refused-last-seen", lambda view: view.refused.at if view.refused else None),
        properties.time("creation-date-time", lambda view: view.peer.created_at, "Created"),
    ),
)
REMOTE_SYSTEM = ObjectType[RemoteSystem](
    "remote-systems",
    "remote-system",
    (
        properties.text("system-name", lambda system: system.name, "System"),
        properties.text("system-serial", lambda system: system.uuid, "Serial number", key=True),
        properties.text("remote-host-port-address", lambda system: system.address, "Address"),
        properties.text("certificate-fingerprint", lambda system: system.fingerprint, "Certificate (SHA-256)"),
        properties.text("version", lambda system: system.version, "Software"),
        properties.text("error", lambda system: system.error, "Error", seldom=True),
    ),
    record=True,
)
SHOWN_FROM_SECONDS = 1.0  # a skew of clocks
SECONDARY_SETS = values.boolean("enabled", "disabled")
ADDRESS = values.text("address", 300)


def _first_contact(context: Context, remote_port_address: str, **given: object) -> Question | None:
    """Whoever answers at that address gets the password: without a fingerprint, somebody has to compare it first."""
    return None if given.get("fingerprint") is not None else _is_it_the_same(context, remote_port_address, None)


def _is_it_the_same(context: Context, address: str, pinned: str | None) -> Question | None:
    """Nothing to ask of a system that shows the certificate that is `pinned` for it."""
    found = context.system.replication.peers.query(address)
    if found.fingerprint == pinned:
        return None
    return Question(
        f"System {found.name} at {found.address} has a certificate with the SHA-256 fingerprint {found.fingerprint}. "
        "Compare it with the certificate in `show system` there: the password is sent to this system.",
        adds=("fingerprint", found.fingerprint),
    )


@COMMANDS.command(
    "create peer-connection",
    "Creates a connection to another system, over which both can replicate volumes. The password is used once and not "
    "stored: the systems remember each other's certificates.",
    keyword("remote-port-address", ADDRESS, "Peer port of the other system: HOST or HOST:PORT.", required=True),
    keyword("remote-username", values.text("user"), "User with the role manage on the other system.", required=True),
    secret(
        "remote-password",
        values.secret("password"),
        "Password of that user on the other system.",
        environment="OFFSITE_REMOTE_PASSWORD",
    ),
    keyword(
        "fingerprint", values.text("fingerprint", 128), "SHA-256 fingerprint that its certificate is required to have."
    ),
    keyword(
        "secondary-sets",
        SECONDARY_SETS,
        "Whether the other system may create sets whose secondary is on this system.",
        default=True,
    ),
    positional("name", values.name("peer connection"), "Name of the new connection.", named=True),
    confirmation=_first_contact,
    examples=("create peer-connection remote-port-address 192.0.2.2 remote-username manage Newark",),
    alone=False,
    slow=True,
    returns=(PEER,),
    errors=PEER_ERRORS,
)
def create_peer_connection(
    context: Context,
    remote_port_address: str,
    remote_username: str,
    remote_password: str,
    name: str,
    secondary_sets: bool,
    fingerprint: str | None = None,
) -> Reply:
    peers = context.system.replication.peers
    login = remote_username, remote_password, fingerprint
    peer = peers.create(name, remote_port_address, *login, secondary_sets=secondary_sets)
    return Reply(f"Peer connection {name} to system {peer.system_name} was created.", (_row(context.system, peer),))


@COMMANDS.command(
    "query peer-connection",
    "Shows the system at an address, without connecting to it permanently.",
    positional("address", ADDRESS, "Peer port of the other system: HOST or HOST:PORT."),
    examples=("query peer-connection 192.0.2.2",),
    alone=False,
    slow=True,
    returns=(REMOTE_SYSTEM,),
    errors=PEER_ERRORS,
)
def query_peer_connection(context: Context, address: str) -> Reply:
    found = context.system.replication.peers.query(address)
    return Reply(rows=(REMOTE_SYSTEM.row(found),))


def _limit(text: str) -> int:
    rate = parse_rate(text)
    return NO_LIMIT if rate is None else rate


def _size_limit(text: str) -> int:
    return NO_LIMIT if text.lower() == "none" else int(parse(values.size(), text)) or 1


def _calendar(text: str) -> BandwidthCalendar:
    return parse_calendar(parse(values.text("bandwidth calendar", CHARACTERS_MAX), text))


CALENDAR_FORM = "For example Mon-Fri 08:00-18:00 10MB, Sat 00:00-24:00 none"
CALENDAR = values.special(ValueKind.CALENDAR, "windows", CALENDAR_FORM, _calendar, or_word="none")


def _change_question(context: Context, peer_connection: str, **given: object) -> str | Question | None:
    """Asked of who logs in where another certificate is shown than the pinned one, and of who chooses between two
    copies of a system."""
    if given.get("remote_username") is not None and given.get("fingerprint") is None:
        known = context.system.replication.peers.get(peer_connection)
        address = given.get("remote_port_address") or known.address
        return _is_it_the_same(context, str(address), known.fingerprint)
    if given.get("accept_incarnation") is None:
        return None
    peer = context.system.replication.peers.get(peer_connection)
    about, refused = peer.incarnation, peer.incarnation.refused
    if refused is None or about.known.newest is None or about.started_at is None or about.met_at is None:
        return None  # the handler tells what is wrong
    return (
        f"System {peer.system_name} has connected with two starts: {about.known.newest}, started "
        f"{format_instant(about.started_at)} and first connected {format_instant(about.met_at)}, which is accepted; "
        f"and {refused.start}, started {format_instant(refused.started_at)}, refused since "
        f"{format_instant(refused.since)} and last seen {format_instant(refused.at)}. Accept "
        f"{given['accept_incarnation']} from now on, and refuse the other?"
    )


@COMMANDS.command(
    "set peer-connection",
    "Changes a peer connection. Name and limits can be changed at any time without disturbing a run. The address can "
    "be changed only while no run uses it, and only to another address of the same system. With remote-username, the "
    "systems exchange their certificates again, which is required after one of them lost its certificate.",
    keyword("name", values.name("peer connection"), "New name of the connection."),
    keyword("remote-port-address", ADDRESS, "New peer port of the other system: HOST or HOST:PORT."),
    keyword("remote-username", values.text("user"), "User with the role manage on the other system."),
    secret(
        "remote-password",
        values.secret("password"),
        "Password of that user on the other system.",
        environment="OFFSITE_REMOTE_PASSWORD",
        needs=Needs("remote-username"),
    ),
    keyword(
        "fingerprint",
        values.text("fingerprint", 128),
        "SHA-256 fingerprint that its certificate is required to have.",
        needs=Needs("remote-username"),
    ),
    keyword(
        "bandwidth-limit",
        values.special(ValueKind.RATE, "rate", "For example 10MB", _limit, or_word="none"),
        "Rate per second that all runs from this system may send together.",
    ),
    keyword(
        "bandwidth-calendar",
        CALENDAR,
        "Times of the week with another limit.",
    ),
    keyword(
        "accept-incarnation",
        values.text("start", 64),
        "Start of the other system to accept, after an older or second copy of it was refused. `show peer-connections` "
        "shows both starts.",
    ),
    keyword(
        "secondary-sets", SECONDARY_SETS, "Whether the other system may create sets whose secondary is on this system."
    ),
    keyword(
        "secondary-size-limit",
        values.special(ValueKind.SIZE, "size", "For example 10GiB or 500GB", _size_limit, or_word="none"),
        "Total size of the volumes that the other system may create on this system.",
    ),
    positional("peer-connection", values.reference("peer connection"), "Name of the peer connection."),
    confirmation=_change_question,
    examples=(
        "set peer-connection bandwidth-limit 10MB Newark",
        'set peer-connection bandwidth-calendar "Mon-Fri 08:00-18:00 2MB" Newark',
        "set peer-connection remote-username manage Newark",
        "set peer-connection secondary-sets disabled Newark",
    ),
    alone=False,
    slow=True,
    returns=(PEER,),
    errors=PEER_ERRORS,
)
def set_peer_connection(
    context: Context,
    peer_connection: str,
    name: str | None = None,
    remote_port_address: str | None = None,
    remote_username: str | None = None,
    remote_password: str | None = None,
    fingerprint: str | None = None,
    bandwidth_limit: int | None = None,
    bandwidth_calendar: BandwidthCalendar | None = None,
    accept_incarnation: str | None = None,
    secondary_sets: bool | None = None,
    secondary_size_limit: int | None = None,
) -> Reply:
    change = PeerChange(
        name=name,
        address=remote_port_address,
        login=_login(remote_username, remote_password, fingerprint),
        bandwidth_limit=bandwidth_limit,
        bandwidth_calendar=bandwidth_calendar,
        secondary_sets=secondary_sets,
        secondary_size_limit=secondary_size_limit,
    )
    peers = context.system.replication.peers
    if accept_incarnation is None:
        peer = peers.change(peer_connection, change)
    elif change != PeerChange():
        raise BadParameter("accept-incarnation cannot be combined with other parameters; give it alone")
    else:
        peer = peers.accept(peer_connection, accept_incarnation)
    return Reply(f"Peer connection {peer.name} was changed.", (_row(context.system, peer),))


def _login(username: str | None, password: str | None, fingerprint: str | None) -> Login | None:
    if username is not None and password is not None:
        return Login(username, password, fingerprint)
    if password is not None or fingerprint is not None:
        raise BadParameter("remote-password and fingerprint require remote-username; give it as well")
    return None


def _delete_question(context: Context, name: str, local_only: bool) -> str:
    peer = context.system.replication.peers.get(name)
    where = "on this system only" if local_only else f"on this system and on system {peer.system_name}"
    return f"Delete peer connection {peer.name} {where}?"


@COMMANDS.command(
    "delete peer-connection",
    "Deletes a peer connection that no replication set uses, on both systems.",
    flag("local-only", "Deletes it on this system only, for use when the other system no longer exists."),
    positional("name", values.reference("peer connection"), "Name of the peer connection."),
    confirmation=_delete_question,
    alone=False,
    slow=True,
    errors=PEER_ERRORS,
    acceptance=lambda context, name, **_: context.system.replication.peers.check_deletable(name),
)
def delete_peer_connection(context: Context, name: str, local_only: bool) -> Reply:
    context.system.replication.peers.delete(name, local_only=local_only)
    return Reply(f"Peer connection {name} was deleted.")


@COMMANDS.command(
    "show peer-connections",
    "Lists the peer connections and their status.",
    positional(
        "name", values.reference("peer connection"), "Name of the connection to show. Default: all.", required=False
    ),
    role=Role.MONITOR,
    returns=(PEER,),
)
def show_peer_connections(context: Context, name: str | None = None) -> Reply:
    peers = context.system.replication.peers
    found = [peers.get(name)] if name is not None else peers.all()
    return Reply(rows=tuple(_row(context.system, each) for each in found))


def _row(system: System, peer: Peer) -> Row:
    return PEER.row(PeerView(peer, system.replication.peers.online(peer.name)))
