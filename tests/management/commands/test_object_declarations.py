"""The types of objects, as all of them are declared."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import pytest

from offsite.management import commands
from offsite.management.command_table.object_types import ObjectType
from offsite.management.commands import enumerations
from offsite.management.commands.enumerations import OWN, Codes
from offsite.pools.retention import PRIORITIES
from offsite.replication.sets.status import Status

MODULES = [
    importlib.import_module(f"{commands.__name__}.{each.name}") for each in pkgutil.iter_modules(commands.__path__)
]
TYPES: list[ObjectType[Any]] = list(
    {
        id(found): found for module in MODULES for found in vars(module).values() if isinstance(found, ObjectType)
    }.values()
)
ENUMERATIONS: dict[str, Codes] = {
    name: found for name, found in vars(enumerations).items() if name.isupper() and isinstance(found, dict)
}
ME4: dict[str, Codes] = {
    "HEALTH": {"OK": 0, "Degraded": 1, "Fault": 2, "Unknown": 3, "N/A": 4},
    "VOLUME_TYPE": {"base": 15, "snapshot": 13},
    "RETENTION_PRIORITY": {"never-delete": 0, "low": 1, "medium": 2, "high": 3},
    "ACCESS": {"no-access": 0, "read-only": 1, "read-write": 3},
    "CONTROLLER": {"A": 1, "B": 0},
    "CONNECTION_STATUS": {"Online": 0, "Offline": 1},
    "QUEUE_POLICY": {"none": 0, "discard": 1, "queue-latest": 2},
    "SNAPSHOT_HISTORY": {"disabled": 0, "secondary": 1, "both": 2},
    "SET_STATUS": {"Not Ready": 0, "Unsynchronized": 1, "Running": 2, "Ready": 3, "Suspended": 4, "Unknown": 5},
    "LAST_RUN_STATUS": {"N/A": 0, "Success": 1, "Fail": 2},
}


@pytest.mark.parametrize("type", TYPES, ids=lambda type: type.basetype)
def test_each_property_has_a_name_of_its_own_and_what_it_refers_to_exists(type: ObjectType[Any]) -> None:
    names = [each.name for each in type.all_properties]
    assert len(set(names)) == len(names)
    assert {each.of_type for each in type.properties} <= {"", *(each.basetype for each in TYPES)}
    assert len({each.display_name for each in type.properties if each.display_name}) == len(
        [each for each in type.properties if each.display_name]
    )


@pytest.mark.parametrize("name", sorted(ME4))
def test_no_code_of_me4_stands_for_something_else(name: str) -> None:
    ours, theirs = ENUMERATIONS[name], ME4[name]
    assert {word: code for word, code in ours.items() if code < OWN}.items() <= theirs.items()
    assert not [word for word, code in ours.items() if code >= OWN and word in theirs]


@pytest.mark.parametrize("name", sorted(ENUMERATIONS))
def test_each_word_has_a_code_of_its_own(name: str) -> None:
    codes = ENUMERATIONS[name].values()
    assert len(set(codes)) == len(codes)


def test_whatever_a_property_may_be_has_a_code() -> None:
    assert set(ENUMERATIONS["SET_STATUS"]) == {each.value for each in Status}
    assert set(ENUMERATIONS["RETENTION_PRIORITY"]) == set(PRIORITIES)
