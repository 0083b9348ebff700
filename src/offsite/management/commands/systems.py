"""The system itself: show system, versions, limits."""

from __future__ import annotations

import platform

from offsite import __version__
from offsite.access.maps import LUN_MAX
from offsite.management.accounts.sessions import SESSIONS_MAX
from offsite.management.accounts.users import PASSWORD_BYTES_MAX, PASSWORD_BYTES_MIN, USERS_MAX
from offsite.management.command_table import properties
from offsite.management.command_table.command import Role, Subject
from offsite.management.command_table.object_types import ObjectType
from offsite.management.command_table.reply import Reply
from offsite.management.commands.pools import POOLS_MAX
from offsite.management.commands.snapshots import SOURCES_MAX
from offsite.management.events.event_log import EVENTS_MAX
from offsite.management.notices.notices import NOTICES_MAX
from offsite.management.system import Context, System
from offsite.names import NAME_BYTES_MAX
from offsite.pools.protocol import SIZE_BYTES_MAX
from offsite.store.settings import ALL as SETTINGS
from offsite.units import format_size

COMMANDS = Subject("System")

SYSTEM = ObjectType[System](
    "system",
    "system-information",
    (
        properties.text("system-name", lambda system: system.name, "System Name"),
        properties.text("midplane-serial-number", lambda system: system.uuid, "Serial Number", key=True),
        properties.text("product-id", lambda _: f"Offsite {__version__}", "Product", display_name="Product ID"),
        properties.text("api-address", lambda system: system.addresses["api"], "API"),
        properties.text("nbd-address", lambda system: system.addresses["nbd"], "NBD"),
        properties.text("peer-address", lambda system: system.addresses["peer"], "Peer Port"),
        properties.text("certificate-fingerprint", lambda system: system.authority.fingerprint, "Certificate"),
        properties.time("certificate-expiry", lambda system: system.authority.ends_at, "Certificate Expires"),
        properties.time("authority-expiry", lambda system: system.authority.authority_ends_at, "Authority Expires"),
        properties.time("started", lambda system: system.started_at, "Started"),
    ),
    record=True,
)
VERSIONS = ObjectType[None](
    "versions",
    "versions",
    (
        properties.text("bundle-version", lambda _: __version__, "Offsite"),
        properties.text("python-version", lambda _: platform.python_version(), "Python"),
    ),
    record=True,
)
LIMIT = ObjectType[tuple[str, str]](
    "limits",
    "limit",
    (
        properties.text("limit", lambda limit: limit[0], "Limit", key=True),
        properties.text("value", lambda limit: limit[1], "Value"),
    ),
)


@COMMANDS.command(
    "show system",
    "Shows the name, addresses and certificate of the system.",
    role=Role.MONITOR,
    returns=(SYSTEM,),
)
def show_system(context: Context) -> Reply:
    return Reply(rows=(SYSTEM.row(context.system),))


@COMMANDS.command(
    "show versions",
    "Shows the software versions of the system.",
    role=Role.MONITOR,
    returns=(VERSIONS,),
)
def show_versions(_context: Context) -> Reply:
    return Reply(rows=(VERSIONS.row(None),))


@COMMANDS.command(
    "show limits",
    "Lists the limits of the system.",
    role=Role.MONITOR,
    returns=(LIMIT,),
)
def show_limits(_context: Context) -> Reply:
    limits = {
        "bytes in a name": str(NAME_BYTES_MAX),
        "size of a volume": format_size(SIZE_BYTES_MAX),
        "volumes in one create snapshots": str(SOURCES_MAX),
        "LUN": f"0 to {LUN_MAX}",
        "pools": str(POOLS_MAX),
        "users": str(USERS_MAX),
        "bytes in a password": f"{PASSWORD_BYTES_MIN} to {PASSWORD_BYTES_MAX}",
        "sessions": str(SESSIONS_MAX),
        "events kept": str(EVENTS_MAX),
        "notices": str(NOTICES_MAX),
        **{f"setting {each.name}": each.limits for each in SETTINGS if each.limits},
    }
    return Reply(rows=tuple(map(LIMIT.row, limits.items())))
