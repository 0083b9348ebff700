"""The words that properties may have, with ME4's numeric codes for them.

What ME4 has no word for has a code from OWN on: no code of ME4 stands for something else here.
"""

from __future__ import annotations

from collections.abc import Mapping

from offsite.events import Severity
from offsite.management.notices.notices import LEVELS
from offsite.pools import retention
from offsite.pools.health import Health
from offsite.replication.sets.status import Status

OWN = 100

Codes = Mapping[str, int]

HEALTH: Codes = {each.word: each.value for each in Health}
VOLUME_TYPE: Codes = {"base": 15, "snapshot": 13}
RETENTION_PRIORITY: Codes = {word: code for code, word in enumerate(retention.PRIORITIES)}
ACCESS: Codes = {"no-access": 0, "read-only": 1, "read-write": 3}
CONTROLLER: Codes = {"A": 1, "B": 0}

SEVERITY: Codes = {each.name: each.value for each in Severity}
NOTICE_SEVERITY: Codes = {level: Severity[level.upper()].value for level in LEVELS}

CONNECTION_STATUS: Codes = {"Online": 0, "Offline": 1}
LOCATION: Codes = {"Local": 0, "Remote": 1}
IS_GROUP: Codes = {"No": 0, "Yes": 1}
QUEUE_POLICY: Codes = {"discard": 1, "queue-latest": 2}
SNAPSHOT_HISTORY: Codes = {"disabled": 0, "secondary": 1, "both": 2}
SET_STATUS: Codes = {
    Status.NOT_READY.value: 0,
    Status.UNSYNCHRONIZED.value: 1,
    Status.RUNNING.value: 2,
    Status.READY.value: 3,
    Status.SUSPENDED.value: 4,
    Status.UNKNOWN.value: 5,
    Status.DIVERGED.value: OWN,
}
LAST_RUN_STATUS: Codes = {"N/A": 0, "Success": 1, "Fail": 2, "Aborted": OWN}
