"""What needs a volume or snapshot to stay, of all floors, in the order in which it is told."""

from __future__ import annotations

from offsite.access import maps
from offsite.management.schedules import records as schedule_records
from offsite.pools import needs
from offsite.pools.needs import Needs
from offsite.replication.records import set_needs
from offsite.store.database import Database


def needs_of_all_floors(database: Database) -> Needs:
    """For whatever puts a system together. A floor that comes to need images has its finder here."""
    found = Needs(database)
    found.register(set_needs.find_members, set_needs.find_points, set_needs.find_sources)
    found.register(maps.find_mapped)
    found.register(needs.find_groups)
    found.register(schedule_records.find_tasks_of)
    found.register(needs.find_children)
    return found
