"""The commands, by subject; together they are the table."""

from offsite.management.command_table.command import Table
from offsite.management.commands import (
    certificates,
    digests,
    events,
    groups,
    maps,
    notices,
    peers,
    pools,
    runs,
    schedules,
    sets,
    settings,
    snapshots,
    systems,
    tasks,
    users,
    volumes,
)

TABLE = Table(
    subject.COMMANDS
    for subject in (
        pools,
        volumes,
        snapshots,
        groups,
        maps,
        certificates,
        peers,
        sets,
        runs,
        tasks,
        schedules,
        digests,
        users,
        events,
        notices,
        settings,
        systems,
    )
)

__all__ = ["TABLE"]
