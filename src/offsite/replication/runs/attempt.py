"""One attempt of one run, over one connection: from the first word to success, or to what cut it.

`work` does it all in the thread that calls it. A simulator calls `machine`, `driver` and `finish` itself, and
puts its own network between them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import Protocol

from sqlalchemy.exc import SQLAlchemyError

from offsite.errors import CertificateChanged, ErrorClass, IncarnationRefused, OffsiteError, PeerUnreachable
from offsite.replication.bandwidth.rate_limiter import Flow
from offsite.replication.link.dialer import DialedConnection
from offsite.replication.records.set_records import SetRecord
from offsite.replication.transfer.progress import Progress
from offsite.replication.transfer.sender.driver import Link, SenderDriver
from offsite.replication.transfer.sender.endpoint import SenderEndpoint
from offsite.replication.transfer.sender.machine import Action, Answer, SenderMachine
from offsite.replication.wire.errors import NotPaired
from offsite.replication.wire.exchange import Asking
from offsite.return_codes import ReturnCode


class AttemptStopped(Exception):
    """Someone asked the run to leave off where it is."""


class ProgramFault(OffsiteError):
    """Something that ought not to happen. It must not pass for a success."""

    code = ReturnCode.PROGRAM_FAULT


class Ended(Protocol):
    """Who wants to know how an attempt ended: see dispatcher."""

    def ended(self, attempt: Attempt, error: Exception | None) -> None: ...


class Attempt:
    def __init__(
        self,
        replication_set: SetRecord,
        end: SenderEndpoint,
        progress: Progress,
        connect: Callable[[], DialedConnection],
        owner: Ended,
        pacing: Flow | None = None,
        heard: Callable[[], None] = lambda: None,
    ) -> None:
        self.set = replication_set
        self.end = end
        self.progress = progress
        self._connect = connect
        self._owner = owner
        self._pacing = pacing
        self._heard = heard
        self._stop = threading.Event()
        self._cut: Callable[[], None] = lambda: None

    def stop(self) -> None:
        """Makes it leave off, within a second; from any thread."""
        self._stop.set()
        self._cut()

    def cut(self) -> None:
        """Ends its connection: it fails, and is tried again over another; from any thread."""
        self._cut()

    @property
    def is_stopped(self) -> bool:
        return self._stop.is_set()

    def check_stopped(self) -> None:
        if self._stop.is_set():
            raise AttemptStopped

    def work(self) -> None:
        """Never raises what may be expected to happen: `finish` puts it on record."""
        error: Exception | None = ProgramFault("a defect of Offsite ended it; the log of the system says more")
        try:
            self.progress.state = "connecting"
            self.check_stopped()
            with self._connect() as connection:
                self._cut = connection.channel.cut
                self.check_stopped()
                self.driver(connection.channel).drive(self.machine(connection.asking))
            error = None
        except (AttemptStopped, OffsiteError, OSError, SQLAlchemyError) as failure:
            error = failure
        finally:
            self._cut = lambda: None
            self.finish(error)

    def machine(self, asking: Asking) -> Generator[Action, Answer, None]:
        run = SenderMachine(self.progress.run, self.set.uuid, self.set.generation, asking, self.end.history)
        return run.steps(self.end.side)

    def driver(self, link: Link) -> SenderDriver:
        return SenderDriver(link, self.end, self.progress, self.check_stopped, self._pacing, self._heard)

    def finish(self, error: Exception | None) -> None:
        """None: the run is done. Whatever comes out of a connection that we cut ourselves is AttemptStopped."""
        self._owner.ended(self, AttemptStopped() if error is not None and self.is_stopped else error)


def sentence_of(error: Exception, pool_name: str) -> str:
    """What the operator reads."""
    if isinstance(error, OSError):
        return f"pool {pool_name} failed: {error}"
    if isinstance(error, SQLAlchemyError):
        return f"the state database failed: {error.__cause__ or error}"
    return str(error)


def class_of(error: Exception) -> ErrorClass:
    """Whether it may go well the next time, or needs an operator, as a disk or a database that failed does."""
    return error.error_class if isinstance(error, OffsiteError) else ErrorClass.OPERATOR


def is_peer_gone(error: Exception) -> bool:
    """Whether it is worth trying again as soon as the peer answers: it was gone, or not the one that is known."""
    return isinstance(error, PeerUnreachable | CertificateChanged | NotPaired | IncarnationRefused)
