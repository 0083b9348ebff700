"""The state of a system for Prometheus: read when it is asked for, nothing is kept.

Names and units as in https://prometheus.io/docs/practices/naming/. docs/monitoring.md lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from offsite import __version__
from offsite.errors import ObjectNotFound
from offsite.management.system import System
from offsite.replication.peers.peers import Peer
from offsite.replication.records.run_counts import run_counts
from offsite.replication.sets.status import Status
from offsite.replication.sets.view import SetInfo
from offsite.replication.transfer.progress import RunProgress
from offsite.targets.common.counters import Totals

RESULTS = ("success", "failed", "aborted", "dropped")
_PEERS_AT_ONCE = 16
_SET_LABELS = ("set", "role", "peer")


def exposition(system: System, accept: str) -> tuple[bytes, str]:
    """All metrics, and their content type: the format that the Accept header `accept` prefers."""
    registry = CollectorRegistry()
    registry.register(_SystemCollector(system))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _SystemCollector(Collector):
    def __init__(self, system: System) -> None:
        self._system = system

    def describe(self) -> Iterable[Metric]:
        """Keeps the registry from collecting once more, to learn the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        system = self._system
        yield InfoMetricFamily(
            "offsite_build", "Version and name of the system.", {"version": __version__, "system": system.name}
        )
        yield GaugeMetricFamily("offsite_start_timestamp_seconds", "Time of the system's start.", system.started_at)
        yield from _pools(system)
        yield from _hosts(system)
        yield from _events(system)
        yield from _notices(system)
        yield from _peers(system)  # before the sets: now it is known who is there
        yield from _sets(system)


def _pools(system: System) -> Iterator[Metric]:
    size = GaugeMetricFamily("offsite_pool_size_bytes", "Size of the pool.", labels=["pool"])
    allocated = GaugeMetricFamily("offsite_pool_allocated_bytes", "Size of the pool's pages in use.", labels=["pool"])
    provisioned = GaugeMetricFamily("offsite_pool_provisioned_bytes", "Total size of all volumes.", labels=["pool"])
    available = GaugeMetricFamily(
        "offsite_pool_available_bytes",
        "Space that can still be written; limited by the free space of the file system.",
        labels=["pool"],
    )
    health = GaugeMetricFamily("offsite_pool_health", "0: OK, 1: degraded, 2: fault.", labels=["pool"])
    for pool in list(system.pools.values()):
        capacity = pool.capacity()
        available.add_metric([pool.name], capacity.available_bytes)
        health.add_metric([pool.name], pool.health[0].value)
        size.add_metric([pool.name], capacity.size_bytes)
        allocated.add_metric([pool.name], capacity.allocated_bytes)
        provisioned.add_metric([pool.name], capacity.provisioned_bytes)
    yield from (size, allocated, available, provisioned, health)


def _hosts(system: System) -> Iterator[Metric]:
    """What hosts do: with the volumes that are there and that any of them has used, and at the ports."""
    volumes, ports = system.counters.volumes(), system.counters.ports()
    images = [each.image for each in system.images() if each.image.uuid in volumes]
    for name, help, value in _OF_HOSTS:
        of_volumes = CounterMetricFamily(f"offsite_volume_{name}", f"{help}, by volume.", labels=["pool", "volume"])
        for image in images:
            of_volumes.add_metric([image.pool, image.name], value(volumes[image.uuid]))
        of_ports = CounterMetricFamily(f"offsite_port_{name}", f"{help}, by port.", labels=["protocol", "address"])
        for port, totals in ports.items():
            of_ports.add_metric([port.protocol, port.address], value(totals))
        yield from (of_volumes, of_ports)


_OF_HOSTS: tuple[tuple[str, str, Callable[[Totals], float]], ...] = (
    ("reads", "Reads of hosts", lambda totals: totals.reads),
    ("read_bytes", "Bytes that hosts read", lambda totals: totals.read_bytes),
    ("read_seconds", "Time that reads took, of all added up", lambda totals: totals.read_seconds),
    ("writes", "Writes of hosts", lambda totals: totals.writes),
    ("written_bytes", "Bytes that hosts wrote", lambda totals: totals.written_bytes),
    ("write_seconds", "Time that writes took, of all added up", lambda totals: totals.write_seconds),
)


def _events(system: System) -> Iterator[Metric]:
    told = CounterMetricFamily("offsite_events", "Events since the system's start.", labels=["severity"])
    for severity, count in system.events.counts().items():
        told.add_metric([severity.name.lower()], count)
    yield told


def _notices(system: System) -> Iterator[Metric]:
    messages = CounterMetricFamily(
        "offsite_notice_messages", "Messages of notices since the system's start.", labels=["notice", "result"]
    )
    for notice in system.notices.all():
        messages.add_metric([notice.name, "sent"], notice.deliveries.sent)
        messages.add_metric([notice.name, "failed"], notice.deliveries.failed)
    yield messages


def _peers(system: System) -> Iterator[Metric]:
    """All peers are asked at the same time: one that is gone makes nobody wait longer than two would."""
    peers = system.replication.peers.all()
    online = GaugeMetricFamily("offsite_peer_online", "1 while the peer is reachable.", labels=["peer", "system"])
    if peers:
        with ThreadPoolExecutor(_PEERS_AT_ONCE) as threads:
            for peer, answer in zip(peers, threads.map(lambda each: _is_online(system, each), peers), strict=True):
                online.add_metric([peer.name, peer.system_name], answer)
    yield online
    skew = GaugeMetricFamily(
        "offsite_peer_clock_skew_seconds",
        "Seconds by which the peer's clock is ahead of this system's; absent while unknown.",
        labels=["peer", "system"],
    )
    for peer in peers:
        if peer.contact.skew is not None:
            skew.add_metric([peer.name, peer.system_name], peer.contact.skew.seconds)
    yield skew


def _is_online(system: System, peer: Peer) -> bool:
    try:
        return system.replication.peers.online(peer.name)
    except ObjectNotFound:  # it was deleted just now
        return False


def _sets(system: System) -> Iterator[Metric]:
    counts = run_counts(system.database)
    found = [(each, counts.get(each.uuid, {})) for each in system.replication.sets.all()]
    for name, help, value in _OF_SETS:
        yield _set_gauge(name, help, [(info, value(info, states)) for info, states in found])
    under_way = [(info, run) for info, _ in found if (run := _progress(system, info)) is not None]
    for name, help, of_run in _OF_RUNS:
        yield _set_gauge(name, help, [(info, of_run(run)) for info, run in under_way])
    status = GaugeMetricFamily(
        "offsite_set_status", "1 for the status of the set, 0 for the others.", labels=[*_SET_LABELS, "status"]
    )
    results = GaugeMetricFamily("offsite_set_runs", "Recorded runs by result.", labels=[*_SET_LABELS, "result"])
    for info, states in found:
        for each in Status:
            status.add_metric([*_labels(info), each.value], info.status is each)
        for result in RESULTS:
            results.add_metric([*_labels(info), result], states.get(result, 0))
    yield from (status, results)


def _progress(system: System, info: SetInfo) -> RunProgress | None:
    """Of the run that is under way: of one that has ended there is nothing left to say."""
    run = system.replication.dispatcher.progress(info.uuid)
    return run if run and info.current_run and run.run == info.current_run.uuid else None


_OF_SETS: tuple[tuple[str, str, Callable[[SetInfo, Mapping[str, int]], float | None]], ...] = (
    (
        "offsite_set_lag_seconds",
        "Age of the newest recovery point; absent without one, or while its age is unknown.",
        lambda info, _: info.lag_seconds,
    ),
    (
        "offsite_set_last_success_timestamp_seconds",
        "Time at which the newest successful run ended.",
        lambda info, _: info.last_success_at,
    ),
    (
        "offsite_set_recovery_point_timestamp_seconds",
        "Time of the data on the secondary, by the clock of the primary.",
        lambda info, _: info.recovery_point_at,
    ),
    ("offsite_set_queued", "Queued runs.", lambda _, states: states.get("queued", 0)),
)
_OF_RUNS: tuple[tuple[str, str, Callable[[RunProgress], float | None]], ...] = (
    (
        "offsite_run_size_bytes",
        "Bytes that the run in progress examines in total.",
        lambda run: run.bytes_total,
    ),
    ("offsite_run_left_bytes", "Bytes that the run in progress has yet to examine.", lambda run: run.bytes_left),
    (
        "offsite_run_rate_bytes_per_second",
        "Bytes that the run in progress examines per second; 0 unless it is sending.",
        lambda run: run.rate_bytes_per_second if run.state == "sending" else 0.0,
    ),
    (
        "offsite_run_expected_end_timestamp_seconds",
        "Expected end of the run in progress; absent unless it is sending.",
        lambda run: run.expected_end_at,
    ),
)


def _set_gauge(name: str, help: str, values: Iterable[tuple[SetInfo, float | None]]) -> Metric:
    gauge = GaugeMetricFamily(name, help, labels=_SET_LABELS)
    for info, value in values:
        if value is not None:
            gauge.add_metric(_labels(info), value)
    return gauge


def _labels(info: SetInfo) -> list[str]:
    return [info.name, info.role, info.peer_name]
