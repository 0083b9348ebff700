"""The words that properties may have, with ME4's numeric codes for them.

What ME4 has no word for has a code from OWN on: no code of ME4 stands for something else here.
"""

from __future__ import annotations

from collections.abc import Mapping

from offsite.pools import retention

OWN = 100

RETENTION_PRIORITY: Mapping[str, int] = {word: code for code, word in enumerate(retention.PRIORITIES)}
VOLUME_TYPE: Mapping[str, int] = {"base": 15, "snapshot": 13}
