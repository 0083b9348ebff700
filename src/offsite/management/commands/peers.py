"""Peer connections: create, query, delete, show."""

from __future__ import annotations

from offsite.management import values
from offsite.management.reply import Kind, ObjectType, Property, Reply, Row, row
from offsite.management.system import Context, System
from offsite.management.table import Role, Subject, flag, keyword, positional, secret
from offsite.replication.peers import Peer

COMMANDS = Subject("Peer connections")

PEER = ObjectType(
    "peer-connections",
    "peer-connection",
    (
        Property("peer-connection-name", "Name"),
        Property("connection-status", "Status"),
        Property("remote-system-name", "System"),
        Property("remote-host-port-address", "Address"),
        Property("remote-certificate-fingerprint"),
        Property("remote-system-serial"),
        Property("connection-type"),
        Property("creation-date-time", "Created", Kind.TIME),
    ),
)
REMOTE_SYSTEM = ObjectType(
    "remote-systems",
    "remote-system",
    (
        Property("system-name", "System"),
        Property("system-serial", "Serial number"),
        Property("remote-host-port-address", "Address"),
        Property("certificate-fingerprint", "Certificate (SHA-256)"),
        Property("version", "Software"),
    ),
    record=True,
)
ADDRESS = values.text("address", 300)


@COMMANDS.command(
    "create peer-connection",
    "Connects this system with another one, so that volumes can be replicated either way. The password is used once, "
    "and not kept: the systems pin each other's certificates.",
    keyword("remote-port-address", ADDRESS, "The peer port of the other system: HOST or HOST:PORT.", required=True),
    keyword("remote-username", values.reference("user"), "A user there, with the role manage.", required=True),
    secret(
        "remote-password",
        values.secret("password"),
        "The password of that user on the other system.",
        environment="OFFSITE_REMOTE_PASSWORD",
    ),
    keyword("fingerprint", values.text("fingerprint", 128), "The SHA-256 that its certificate must have."),
    positional("name", values.name("peer connection"), "A name for the connection.", named=True),
    long=True,
    examples=("create peer-connection remote-port-address 192.0.2.2 remote-username manage Newark",),
)
def create_peer_connection(
    context: Context,
    remote_port_address: str,
    remote_username: str,
    remote_password: str,
    name: str,
    fingerprint: str | None = None,
) -> Reply:
    peers = context.system.replication.peers
    peer = peers.create(name, remote_port_address, remote_username, remote_password, fingerprint)
    return Reply(f"Peer connection {name} to system {peer.system_name} was created.", (_row(context.system, peer),))


@COMMANDS.command(
    "query peer-connection",
    "Asks the system at an address who it is.",
    positional("address", ADDRESS, "The peer port of the other system: HOST or HOST:PORT."),
    long=True,
    examples=("query peer-connection 192.0.2.2",),
)
def query_peer_connection(context: Context, address: str) -> Reply:
    found = context.system.replication.peers.query(address)
    remote = row(
        REMOTE_SYSTEM,
        {
            "system-name": found.name,
            "system-serial": found.uuid,
            "remote-host-port-address": found.address,
            "certificate-fingerprint": found.fingerprint,
            "version": found.version,
        },
    )
    return Reply(rows=(remote,))


def _delete_question(context: Context, name: str, local_only: bool = False) -> str:
    peer = context.system.replication.peers.get(name)
    where = "here alone" if local_only else f"here and on system {peer.system_name}"
    return f"Delete peer connection {peer.name} {where}?"


@COMMANDS.command(
    "delete peer-connection",
    "Deletes a peer connection that no replication set uses, here and on the other system.",
    flag("local-only", "Only here: for when the other system is gone."),
    positional("name", values.reference("peer connection"), "The peer connection."),
    confirmation=_delete_question,
    long=True,
)
def delete_peer_connection(context: Context, name: str, local_only: bool = False) -> Reply:
    context.system.replication.peers.delete(name, local_only=local_only)
    return Reply(f"Peer connection {name} was deleted.")


@COMMANDS.command(
    "show peer-connections",
    "Lists the peer connections, and whether the other system answers.",
    positional("name", values.reference("peer connection"), "Only this one.", required=False),
    role=Role.MONITOR,
    long=True,
)
def show_peer_connections(context: Context, name: str | None = None) -> Reply:
    peers = context.system.replication.peers
    found = [peers.get(name)] if name is not None else peers.all()
    return Reply(rows=tuple(_row(context.system, each) for each in found))


def _row(system: System, peer: Peer) -> Row:
    return row(
        PEER,
        {
            "peer-connection-name": peer.name,
            "connection-status": "Online" if system.replication.peers.online(peer.name) else "Offline",
            "remote-system-name": peer.system_name,
            "remote-host-port-address": peer.address,
            "remote-certificate-fingerprint": peer.fingerprint,
            "remote-system-serial": peer.system_uuid,
            "connection-type": "TLS",
            "creation-date-time": peer.created_at,
        },
    )
