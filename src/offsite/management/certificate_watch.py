"""Tells before a certificate ends: one of an initiator, the system's own, or its authority's.

Each is told of three times at most: 30 days before, 7 days before, and when it has ended; again after a restart, but
not of an initiator's that ended long ago.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from offsite.access.initiator_certificates import ENDED_LONG_SECONDS
from offsite.clock import Clock
from offsite.errors import OffsiteError
from offsite.events import CERTIFICATE_ENDS, Report

if TYPE_CHECKING:
    from offsite.access.initiator_certificates import InitiatorCertificate
    from offsite.management.system import System

LOOK_SECONDS = 6 * 3600.0
DAY_SECONDS = 86400.0
TOLD_DAYS = (30, 7, 0)

_log = structlog.get_logger("offsite.certificates")


@dataclass(frozen=True, slots=True)
class Ending:
    """A certificate in use; `renewal` is what to do, as a clause."""

    what: str
    ends_at: float
    renewal: str


def certificates_in_use(system: System) -> Iterator[Ending]:
    name = system.name
    yield Ending(
        f"The certificate of system {name}",
        system.authority.ends_at,
        "stop the system, remove keys/system.pem and keys/system-key.pem, start it with --new-keys, and log in to each "
        "peer again",
    )
    yield Ending(
        f"The certificate of the authority of system {name}",
        system.authority.authority_ends_at,
        "stop the system, remove keys/ca.pem and keys/ca-key.pem, start it with --new-keys, log in to each peer "
        "again, and create the certificates of initiators again",
    )
    newest: dict[str, InitiatorCertificate] = {}
    for each in system.certificates.all():
        if each.revoked_at is None and (each.name not in newest or newest[each.name].ends_at < each.ends_at):
            newest[each.name] = each
    for each in newest.values():
        if each.ends_at < system.clock.now() - ENDED_LONG_SECONDS:
            continue  # its host is gone, or gets in as another
        yield Ending(
            f"Certificate {each.serial} of initiator tls:{each.name}",
            each.ends_at,
            f"create a new one with `create initiator-certificate {each.name}`, and install it on the host",
        )


class CertificateWatch:
    """`look` returns the certificates in use."""

    def __init__(self, look: Callable[[], Iterable[Ending]], report: Report, clock: Clock) -> None:
        self._look = look
        self._report = report
        self._clock = clock
        self._told: dict[Ending, int] = {}  # for how many days before its end; only of those that there are

    def step(self) -> float:
        """See ticker.Ticker."""
        try:
            self._tell(list(self._look()))
        except OffsiteError as error:  # the database cannot be read just now: another part tells of that
            _log.error("cannot check the certificates", reason=str(error))
        return self._clock.monotonic() + LOOK_SECONDS

    def _tell(self, found: list[Ending]) -> None:
        now = self._clock.now()
        told: dict[Ending, int] = {}
        for each in found:
            left_days = (each.ends_at - now) / DAY_SECONDS
            due = [days for days in TOLD_DAYS if left_days <= days]
            if not due:
                continue
            told[each] = due[-1]
            if self._told.get(each) != due[-1]:
                when = f"expires in {left_days:.0f} days" if due[-1] else "has expired"
                self._report(CERTIFICATE_ENDS, f"{each.what} {when}: {each.renewal}.")
        self._told = told
