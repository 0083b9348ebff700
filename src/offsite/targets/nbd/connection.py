"""One NBD client: handshake, perhaps TLS, transmission.

accepted ──Negotiation──▶ export chosen ──Transmission──▶ closed
              │   ▲
              └TLS┘
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from offsite.errors import NoPlace
from offsite.targets.common.connection import TargetConnection, prefer_batches
from offsite.targets.common.grants import Grant, Grants
from offsite.targets.nbd.negotiation import Negotiated, Negotiation, State
from offsite.targets.nbd.transmission import Transmission

_HANDSHAKE_BUFFER_BYTES = 4096


class InitiatorLookup:
    """The exports as `initiator` sees them. See negotiation.Lookup."""

    def __init__(self, grants: Grants, initiator: str, settle: Callable[[], None]) -> None:
        self._grants = grants
        self._initiator = initiator
        self._settle = settle

    def visible(self) -> list[Grant]:
        return self._grants.by_name(self._initiator)

    def find(self, name: str) -> Grant | None:
        return self._grants.find(name, self._initiator)

    def refusal(self) -> str:
        try:
            self._settle()
        except NoPlace as error:
            return str(error)
        return ""


class NbdConnection(TargetConnection):
    """See common.connection. `initiator` is `nbd:ADDRESS`, and with a certificate `tls:NAME`."""

    NAME = "NBD"
    PROTOCOL = "nbd"
    ID_PREFIX = "nbd:"

    def serve(self, log: Any) -> None:
        negotiation = self._negotiate()
        if negotiation.outcome is not None:
            log = log.bind(export=negotiation.outcome.export.name, initiator=self.initiator)
            log.info("NBD client connected")
            self._transmit(negotiation.outcome, negotiation.left_over())
            log.info("NBD client disconnected")

    def _negotiate(self) -> Negotiation:
        deadline = time.monotonic() + self._settings.handshake_seconds
        negotiation = Negotiation(self._lookup(), self.tls_mode())
        buffer = memoryview(bytearray(_HANDSHAKE_BUFFER_BYTES))
        self._channel.send(negotiation.greeting(), deadline)
        while negotiation.state not in (State.TRANSMISSION, State.ENDED):
            received = self._channel.receive_before(buffer, deadline)
            if not received:
                break
            reply = negotiation.receive(buffer[:received])
            if negotiation.outcome is not None:
                self.use(negotiation.outcome.export)
            self._channel.send(reply, deadline)
            if negotiation.state is State.TLS:
                self.start_tls(deadline)
                negotiation.tls_started(self._lookup())
        return negotiation

    def _lookup(self) -> InitiatorLookup:
        return InitiatorLookup(self._settings.grants, self.initiator, self.settle)

    def _transmit(self, outcome: Negotiated, left_over: bytes) -> None:
        prefer_batches()
        with (
            self.counting(outcome.export) as activity,
            closing(
                Transmission(self._channel, outcome, self._settings.workers, self.initiator, activity)
            ) as transmission,
        ):
            transmission.run(left_over)
