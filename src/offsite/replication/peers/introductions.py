"""What two systems that are peers tell of themselves when a connection begins, and what each decides by it.

Both ends do the same, whoever has connected: see incarnation.py for what is decided.

    Hello comes ──▶ is it the system that is known? ──▶ are we the one that it knows? ──▶ taken
                       │ no                               │ no
                       └─▶ refused; on record; an event   └─▶ refused; on record; an event

Each event is told once for each copy, however often it comes.
"""

from __future__ import annotations

from msgspec.structs import replace
from sqlalchemy import Connection

from offsite import events
from offsite.clock import Clock
from offsite.errors import BadParameter, IncarnationRefused
from offsite.events import Report
from offsite.replication.link.identity import SystemIdentity
from offsite.replication.peers import incarnation_records
from offsite.replication.peers.contacts import Contacts
from offsite.replication.peers.incarnation import Acquaintance, Lineage, Start, Verdict, choose, judge, told_lineage
from offsite.replication.peers.incarnation_records import OwnRefusal, PeerIncarnation, RefusedStart
from offsite.replication.records import peer_records
from offsite.replication.records.peer_records import PeerRecord
from offsite.replication.wire.errors import NotPaired
from offsite.replication.wire.messages import (
    INSTANT_MAX,
    Hello,
    ToldAcquaintance,
    ToldIncarnation,
    ToldStart,
    told_instant,
)
from offsite.store.database import Database
from offsite.units import format_instant

NOTED_SECONDS = 60.0  # how old the record of when a refused system came last may be

_WHAT = {
    Verdict.OLDER: "an older copy of it",
    Verdict.TWIN: "a second copy of it",
    Verdict.DENIED: "a copy that was rejected",
}
_WHAT_WE_ARE = {
    Verdict.OLDER: "an older copy of itself",
    Verdict.TWIN: "a second copy of itself",
    Verdict.DENIED: "a copy that was rejected there",
}


class Introductions:
    """Made once in each start of a system, after all checks of the start and before anything is said to a peer: it
    takes the incarnation."""

    def __init__(
        self, database: Database, system: SystemIdentity, contacts: Contacts, report: Report, clock: Clock
    ) -> None:
        self._database = database
        self._system = system
        self._contacts = contacts
        self._report = report
        self._clock = clock
        self._started_at = clock.now()
        with database.transaction() as transaction:
            self._starts = incarnation_records.begin_start(transaction, self._started_at)

    @property
    def current(self) -> Start:
        """This start of this system."""
        return self._starts[-1]

    def hello(self, certificate: bytes | None) -> Hello:
        """What is said to the system that has shown this certificate, or to a stranger."""
        hello = self._system.hello()
        if certificate is None:
            return hello
        of = self._find(certificate)
        lineage = self._lineage(of[1] if of else PeerIncarnation())
        incarnation = ToldIncarnation(
            current=_told(lineage.current),
            started_at=told_instant(self._started_at),
            earlier=[_told(start) for start in lineage.earlier],
        )
        known = _told_acquaintance(of[1].known) if of else None
        now = self._clock.now()  # a clock that is that wrong is not told: the connection would end
        return replace(hello, incarnation=incarnation, known=known, now=now if 0 <= now <= INSTANT_MAX else None)

    def meet(self, certificate: bytes | None, hello: Hello, waited_seconds: float) -> None:
        """Hears who is there: see Introduces. Raises IncarnationRefused, or NotPaired: then nothing is done for it."""
        arrived_at = self._clock.monotonic()  # before anything is waited for, as a lock of the database
        of = self._find(certificate) if certificate is not None else None
        if of is None:
            return
        peer, about = of
        told = _lineage_of(hello)
        self._check_peer(peer, about, hello, told)
        self._check_own(peer, about, hello)
        self._contacts.heard(peer, hello.now, waited_seconds, arrived_at)

    def alive(self, peer: PeerRecord) -> None:
        self._contacts.alive(peer)

    def about(self, peer: PeerRecord) -> PeerIncarnation:
        with self._database.read() as transaction:
            return incarnation_records.peer_incarnation(transaction, peer.id)

    def accept(self, peer: PeerRecord, wanted: str) -> PeerIncarnation:
        """An operator says which of two starts of a peer is to live; from now on the other one, and what descends from
        it, is refused. Raises BadParameter when `wanted` is neither the known nor the refused one."""
        with self._database.transaction() as transaction:
            _check_still_there(transaction, peer)
            about = incarnation_records.peer_incarnation(transaction, peer.id)
            refused, newest = about.refused, about.known.newest
            if refused is None or newest is None:
                raise BadParameter(f"no copy of system {peer.system_name} was refused; there is nothing to choose")
            chosen = next((start for start in (newest, refused.start) if wanted in (str(start), start.id)), None)
            if chosen is None:
                raise BadParameter(
                    f"start {wanted[:100]!r} of system {peer.system_name} is neither {newest}, which is accepted, nor "
                    f"{refused.start}, which is refused"
                )
            if chosen == refused.start:
                known = choose(about.known, chosen)
                incarnation_records.put_known(transaction, peer.id, known, refused.started_at, self._clock.now())
            incarnation_records.put_refused(transaction, peer.id, None)
        other = newest if chosen == refused.start else refused.start
        self._report(
            events.COPY_SETTLED,
            f"Of system {peer.system_name} (peer connection {peer.name}), start {chosen} was chosen: it is accepted "
            f"from now on, and start {other} is refused.",
        )
        return about

    # -- the other one ---------------------------------------------------------------------------------------

    def _check_peer(self, peer: PeerRecord, about: PeerIncarnation, hello: Hello, told: Lineage | None) -> None:
        if told is None or hello.incarnation is None:
            if about.known.newest is None:
                return  # of a version that does not know of incarnations
            raise IncarnationRefused(
                f"system {peer.system_name} runs an older version, which does not identify its start as it did before; "
                "use the previous version there again"
            )
        verdict = judge(about.known, told)
        if verdict is Verdict.SAME:
            return
        started_at, is_new = hello.incarnation.started_at, False
        with self._database.transaction() as transaction:  # another connection may just be telling something else
            _check_still_there(transaction, peer)
            about = incarnation_records.peer_incarnation(transaction, peer.id)
            verdict = judge(about.known, told)
            if verdict is Verdict.NEWER:
                known = Acquaintance(told.current, about.known.denied)
                incarnation_records.put_known(transaction, peer.id, known, started_at, self._clock.now())
            elif not verdict.is_taken:
                refused, is_new = self._refused(about.refused, told, started_at, verdict)
                if refused != about.refused:
                    incarnation_records.put_refused(transaction, peer.id, refused)
        if not verdict.is_taken:
            sentence = _refusal(peer, about, told.current, started_at, verdict)
            if is_new:
                self._report(events.PEER_IS_A_COPY, f"{sentence[0].upper()}{sentence[1:]}.")
            raise IncarnationRefused(sentence)

    def _refused(
        self, before: RefusedStart | None, told: Lineage, started_at: float, verdict: Verdict
    ) -> tuple[RefusedStart, bool]:
        """How it goes on record, and whether it is another one than was refused before."""
        now = self._clock.now()
        if before is None or not told.holds(before.start):
            return RefusedStart(told.current, started_at, verdict, now, now), True
        if before.start == told.current and before.verdict is verdict and 0 <= now - before.at < NOTED_SECONDS:
            return before, False
        return RefusedStart(told.current, started_at, verdict, before.since, now), False

    # -- ourselves -------------------------------------------------------------------------------------------

    def _check_own(self, peer: PeerRecord, about: PeerIncarnation, hello: Hello) -> None:
        """Whether the peer takes us for the system that it knows. It will judge the same way."""
        known = _acquaintance_of(hello)
        if known.newest is None:
            return
        lineage = self._lineage(about)
        verdict = judge(known, lineage)
        if verdict.is_taken:
            if about.own_refusal is not None or about.confirmed != known.newest:
                self._taken(peer, known.newest)
            return
        sentence = (
            f"system {peer.system_name} regards this system (start {lineage.current}) as {_WHAT_WE_ARE[verdict]}: it "
            f"knows start {known.newest}. To continue with this one, choose it there: set peer-connection "
            f"accept-incarnation {lineage.current} {self._system.name}"
        )
        if self._note_own_refusal(peer, OwnRefusal(verdict, self._clock.now(), str(known.newest))):
            self._report(events.SYSTEM_IS_A_COPY, f"S{sentence[1:]}.")
        raise IncarnationRefused(sentence)

    def _note_own_refusal(self, peer: PeerRecord, refusal: OwnRefusal) -> bool:
        """Whether it is another one than before."""
        with self._database.transaction() as transaction:  # another connection may just have been refused, too
            _check_still_there(transaction, peer)
            before = incarnation_records.peer_incarnation(transaction, peer.id).own_refusal
            if before is not None and before.verdict is refusal.verdict:
                return False
            incarnation_records.put_own_refusal(transaction, peer.id, refusal)
        return True

    def _taken(self, peer: PeerRecord, confirmed: Start) -> None:
        with self._database.transaction() as transaction:
            _check_still_there(transaction, peer)
            about = incarnation_records.peer_incarnation(transaction, peer.id)
            incarnation_records.put_confirmed(transaction, peer.id, confirmed)
            incarnation_records.put_own_refusal(transaction, peer.id, None)
        if about.own_refusal is not None:
            self._report(
                events.COPY_SETTLED,
                f"System {peer.system_name} (peer connection {peer.name}) again accepts this system as the one that it "
                "knows.",
            )

    def _lineage(self, about: PeerIncarnation) -> Lineage:
        return told_lineage(self._starts, about.confirmed)

    def _find(self, certificate: bytes) -> tuple[PeerRecord, PeerIncarnation] | None:
        with self._database.read() as transaction:
            peer = peer_records.find_peer(transaction, certificate)
            return None if peer is None else (peer, incarnation_records.peer_incarnation(transaction, peer.id))


def _check_still_there(transaction: Connection, peer: PeerRecord) -> None:
    """Raises NotPaired: nothing is put on record of a peer that was deleted since it was looked up."""
    if not peer_records.has_peer(transaction, peer.id):
        raise NotPaired(f"peer connection {peer.name} was just deleted here")


def _refusal(peer: PeerRecord, about: PeerIncarnation, told: Start, started_at: float, verdict: Verdict) -> str:
    newest, met_at = about.known.newest, about.met_at
    known = f"start {newest}" + (f", seen {format_instant(met_at)}" if met_at is not None else "")
    return (
        f"system {peer.system_name} (peer connection {peer.name}) connected with start {told} of "
        f"{format_instant(started_at)}, but this system knows {known}: it is {_WHAT[verdict]} and is refused. Stop the "
        f"wrong one; if that is the known one, choose the other: set peer-connection accept-incarnation {told} "
        f"{peer.name}"
    )


def _lineage_of(hello: Hello) -> Lineage | None:
    told = hello.incarnation
    if told is None:
        return None
    return Lineage(_start(told.current), tuple(map(_start, told.earlier)))


def _acquaintance_of(hello: Hello) -> Acquaintance:
    told = hello.known
    if told is None or told.newest is None:
        return Acquaintance()
    return Acquaintance(_start(told.newest), tuple(map(_start, told.denied)))


def _start(told: ToldStart) -> Start:
    return Start(told.number, told.id)


def _told(start: Start) -> ToldStart:
    return ToldStart(start.number, start.id)


def _told_acquaintance(known: Acquaintance) -> ToldAcquaintance:
    newest = None if known.newest is None else _told(known.newest)
    return ToldAcquaintance(newest=newest, denied=[_told(start) for start in known.denied])
