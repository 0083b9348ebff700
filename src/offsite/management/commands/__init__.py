"""The commands, by subject; together they are the table."""

from offsite.management.command_table.command import Table
from offsite.management.commands import (
    actions,
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

_SUBJECTS = tuple(
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
_ACTIONS = actions.subject_of([command for subject in _SUBJECTS for command in subject.commands])

TABLE = Table((*_SUBJECTS, _ACTIONS))

__all__ = ["TABLE"]
