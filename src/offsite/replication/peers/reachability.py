"""Whether peers are there."""

from __future__ import annotations

import threading
from contextlib import suppress

from offsite.clock import Clock
from offsite.errors import OffsiteError
from offsite.replication.link.dialer import Dials
from offsite.replication.records.peer_records import PeerRecord
from offsite.replication.wire.messages import Done, Ping

FRESH_SECONDS = 5.0  # how long an answer holds good
PING_SECONDS = 3.0
PATIENCE_SECONDS = 0.5  # after it was asked a peer that has gone is not waited for; what was known last counts

_Whom = tuple[str, str, bytes]


class Reachability:
    """Asks when somebody wants to know, and not more often than every few seconds."""

    def __init__(self, dialer: Dials, clock: Clock) -> None:
        self._dialer = dialer
        self._clock = clock
        self._lock = threading.Lock()
        self._answers: dict[_Whom, tuple[float, bool]] = {}
        self._asking: dict[_Whom, tuple[float, threading.Thread]] = {}  # since when

    def is_online(self, peer: PeerRecord) -> bool:
        whom = _whom(peer)
        with self._lock:
            asked_at, answer = self._answers.get(whom, (-FRESH_SECONDS, False))
            if self._clock.monotonic() < asked_at + FRESH_SECONDS:
                return answer
            asking = self._asking.get(whom)
            if asking is None:
                thread = threading.Thread(target=self._ask, args=(peer,), name=f"ping-{peer.name}", daemon=True)
                asking = self._asking[whom] = (self._clock.monotonic(), thread)
                thread.start()
        since, thread = asking
        thread.join(max(0.0, since + PATIENCE_SECONDS - self._clock.monotonic()))
        with self._lock:
            return self._answers.get(whom, (0.0, False))[1]

    def forget(self) -> None:
        """The next one who wants to know makes us ask."""
        with self._lock:
            self._answers.clear()

    def _ask(self, peer: PeerRecord) -> None:
        answer = False
        try:
            with suppress(OffsiteError), self._dialer.dial(peer.address, peer.certificate, PING_SECONDS) as connection:
                connection.channel.ask(connection.asking, Ping(), Done)
                answer = True
        finally:  # also after a fault: while somebody is taken to ask, nobody else does
            with self._lock:
                self._answers[_whom(peer)] = (self._clock.monotonic(), answer)
                del self._asking[_whom(peer)]


def _whom(peer: PeerRecord) -> _Whom:
    """An answer from an address that was changed meanwhile, or under another certificate, is no answer."""
    return peer.system_uuid, peer.address, peer.certificate
