"""How soon `suspend replication-set` takes effect, during the initial run of 3 GiB of random data at full rate.

Two processes `offsite serve` as for the initial run. The run is suspended and resumed again and again, each time
once it has sent some 64 to 256 MiB more. The clock starts before the command goes out over the control socket (the
start of a Python, which the command line adds, is not counted) and stops when all of this is so: the command is
answered, the status of the set is Suspended, and from none of the primary's connections to the secondary's peer
port that were there before can data come any more: each is shut for writing and has nothing left to send, by the
kernel's list of connections. A tenth of a second later the run must not have sent a byte more by its own count.
The longest of all the times has to keep to the bound. After the last one the run has to end well.
"""

from __future__ import annotations

import time

from benchmarks import connections, systems
from benchmarks.bench import Bench, write_random
from benchmarks.measure import Line, Measured, Outcomes, Samples, Unit, at_most
from benchmarks.processes import CannotMeasure, wait_until
from benchmarks.systems import System

_SET = "SentSet"
_RUN_VOLUMES = 3  # times the size of a volume: the run has to last through all suspensions
_SUSPENSIONS = 9
_WAIT_SECONDS = 60.0
_AFTER_SECONDS = 0.1
_TITLE = "suspending a run that sends at full rate"
WORST = Line(f"{_TITLE}: the longest of {_SUSPENSIONS}", Unit.SECONDS, target=at_most(1.0))
ALL = Line(f"{_TITLE}: all", Unit.SECONDS)
LINES = (WORST, ALL)


def measure(bench: Bench) -> Outcomes:
    sent = bench.directory / "sent"
    write_random(sent, bench.settings.volume_bytes * _RUN_VOLUMES)
    seconds: list[float] = []
    with systems.two(bench) as (london, newark):
        london.import_volume("Sent", sent)
        sent.unlink()
        london.create_set(_SET, "Sent", "Sent")
        london.ask("replicate", _SET)
        for number in range(_SUSPENSIONS):
            _wait_for_more(london, bench.settings.volume_bytes // 16 * (1 + number % 4))
            seconds.append(_suspend(london, newark))
            bench.say(f"suspended within {seconds[-1] * 1e3:.0f} ms")
            london.ask("resume", "replication-set", _SET)
        london.wait_for_run(_SET)
    return {WORST: Measured(Samples.of([max(seconds)])), ALL: Measured(Samples.of(seconds))}


def _wait_for_more(london: System, more_bytes: int) -> None:
    """Until the run, which may have been suspended, has sent so much more."""
    before = london.last_run(_SET).wire_bytes

    def has_sent() -> bool:
        run = london.last_run(_SET)
        if run.state != "running":
            raise CannotMeasure(f"the run was over before it could be suspended: {run.state}")
        return run.phase == "sending" and run.wire_bytes >= before + more_bytes

    wait_until(has_sent, _WAIT_SECONDS, f"the run did not get on within {_WAIT_SECONDS:g} s")


def _suspend(london: System, newark: System) -> float:
    before = connections.sending_to(newark.address, newark.peer_port)
    if not before:
        raise CannotMeasure("no connection of the run is seen, so its end could not be, either")
    start = time.perf_counter()
    london.ask("suspend", "replication-set", _SET)
    wait_until(
        lambda: not before & connections.sending_to(newark.address, newark.peer_port),
        _WAIT_SECONDS,
        f"there was still data on the wire after {_WAIT_SECONDS:g} s",
        poll_seconds=0.001,
    )
    wait_until(
        lambda: _status(london) == "Suspended", _WAIT_SECONDS, f"the set was not Suspended after {_WAIT_SECONDS:g} s"
    )
    seconds = time.perf_counter() - start
    sent_bytes = london.last_run(_SET).wire_bytes
    time.sleep(_AFTER_SECONDS)
    if london.last_run(_SET).wire_bytes != sent_bytes:
        raise CannotMeasure("the run went on sending although it was suspended")
    return seconds


def _status(london: System) -> str:
    return str(london.ask("show", "replication-sets", _SET)["replication-sets"][0]["status"])
