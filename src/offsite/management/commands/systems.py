"""The system itself: show system, versions, limits."""

from __future__ import annotations

import platform
from typing import Any

from offsite import __version__
from offsite.access.maps import LUN_MAX
from offsite.management.accounts.sessions import SESSIONS_MAX
from offsite.management.accounts.users import PASSWORD_BYTES_MAX, PASSWORD_BYTES_MIN, USERS_MAX
from offsite.management.command_table.command import Role, Subject
from offsite.management.command_table.reply import Kind, ObjectType, Property, Reply, Value, row
from offsite.management.commands.pools import POOLS_MAX
from offsite.management.commands.snapshots import SOURCES_MAX
from offsite.management.events.event_log import EVENTS_MAX
from offsite.management.notices.notices import NOTICES_MAX
from offsite.management.system import Context
from offsite.names import NAME_BYTES_MAX
from offsite.pools.protocol import SIZE_BYTES_MAX
from offsite.store.settings import ALL as SETTINGS
from offsite.units import format_size

COMMANDS = Subject("System")

SYSTEM = ObjectType[Any](
    "system",
    "system-information",
    (
        Property("system-name", "System Name"),
        Property("midplane-serial-number", "Serial Number"),
        Property("product-id", "Product"),
        Property("api-address", "API"),
        Property("nbd-address", "NBD"),
        Property("peer-address", "Peer Port"),
        Property("certificate-fingerprint", "Certificate"),
        Property("certificate-expiry", "Certificate Ends", Kind.TIME),
        Property("authority-expiry", "Authority Ends", Kind.TIME),
        Property("started", "Started", Kind.TIME),
    ),
    record=True,
)
VERSIONS = ObjectType[Any](
    "versions",
    "versions",
    (Property("bundle-version", "Offsite"), Property("python-version", "Python")),
    record=True,
)
LIMIT = ObjectType[Any]("limits", "limit", (Property("limit", "Limit"), Property("value", "Value")))


@COMMANDS.command("show system", "Shows what this system is and where it listens.", role=Role.MONITOR)
def show_system(context: Context) -> Reply:
    system = context.system
    values: dict[str, Value] = {
        "system-name": system.name,
        "midplane-serial-number": system.uuid,
        "product-id": f"Offsite {__version__}",
        "api-address": system.addresses["api"],
        "nbd-address": system.addresses["nbd"],
        "peer-address": system.addresses["peer"],
        "certificate-fingerprint": system.authority.fingerprint,
        "certificate-expiry": system.authority.ends_at,
        "authority-expiry": system.authority.authority_ends_at,
        "started": system.started_at,
    }
    return Reply(rows=(row(SYSTEM, values),))


@COMMANDS.command("show versions", "Shows which version this system is.", role=Role.MONITOR)
def show_versions(_context: Context) -> Reply:
    return Reply(rows=(row(VERSIONS, {"bundle-version": __version__, "python-version": platform.python_version()}),))


@COMMANDS.command("show limits", "Lists what this system allows at most.", role=Role.MONITOR)
def show_limits(_context: Context) -> Reply:
    limits = {
        "bytes of a name": str(NAME_BYTES_MAX),
        "size of a volume": format_size(SIZE_BYTES_MAX),
        "volumes of one create snapshots": str(SOURCES_MAX),
        "LUN": f"0 to {LUN_MAX}",
        "pools": str(POOLS_MAX),
        "users": str(USERS_MAX),
        "bytes of a password": f"{PASSWORD_BYTES_MIN} to {PASSWORD_BYTES_MAX}",
        "sessions": str(SESSIONS_MAX),
        "events kept": str(EVENTS_MAX),
        "notices": str(NOTICES_MAX),
        **{f"setting {each.name}": each.limits for each in SETTINGS if each.limits},
    }
    return Reply(rows=tuple(row(LIMIT, {"limit": name, "value": value}) for name, value in limits.items()))
