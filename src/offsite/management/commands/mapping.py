"""How initiators are named in commands, and how several maps are made in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from offsite.access.maps import Access
from offsite.errors import BadParameter, InitiatorNotFound
from offsite.escaping import shown
from offsite.management.system import System
from offsite.targets.common.identity import CERTIFICATE_PREFIX

_ISCSI_PREFIX = "iqn."  # taken beforehand: no target serves it yet


def resolve_initiators(system: System, names: Sequence[str] | None) -> list[str | None]:
    """Ids of the initiators that `names` stand for: ids, or nicknames. None stands for everyone.

    An id is taken as it is, so that a host can be given its volumes before it is first seen. Raises
    InitiatorNotFound.
    """
    if names is None:
        return [None]
    known = system.maps.initiators()
    ids = {each.id for each in known}
    nicknames = {each.nickname: each.id for each in known if each.nickname}
    prefixes = (CERTIFICATE_PREFIX, *(target.id_prefix for target in system.targets), _ISCSI_PREFIX)
    return [_resolve(name, ids, nicknames, prefixes) for name in names]


def _resolve(name: str, ids: set[str], nicknames: dict[str, str], prefixes: Sequence[str]) -> str:
    if name in nicknames:
        return nicknames[name]
    if name in ids or any(name.startswith(prefix) and name != prefix for prefix in prefixes):
        return name
    raise InitiatorNotFound(
        f"initiator {shown(name)} does not exist; give a nickname or an id of `show initiators`, or tls:NAME or "
        "nbd:ADDRESS for one that has not connected yet"
    )


def make_maps(
    system: System, image_ids: Sequence[int], initiators: Sequence[str | None], access: str, lun: int | None
) -> None:
    """Maps each image to each initiator, in one transaction. Several images get rising LUNs, from `lun` on."""
    if lun is not None and lun + len(image_ids) - 1 > 1023:
        raise BadParameter(f"{len(image_ids)} volumes from LUN {lun} on would exceed LUN 1023, the highest")
    with system.database.transaction():
        for initiator in initiators:
            for position, image_id in enumerate(image_ids):
                its_lun = None if lun is None else lun + position
                system.maps.map(image_id, initiator, cast(Access, access), its_lun)
