"""Metrics: who gets them, that they say what is so, and that the dashboard asks for what there is."""

from __future__ import annotations

import base64
import http.client
import json
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from offsite import __version__
from offsite import events as kinds
from offsite.errors import ErrorClass, ObjectNotFound
from offsite.interfaces.http import metrics
from offsite.replication.peers.peers import Peers
from offsite.replication.records.tables import runs as runs_table
from offsite.replication.transfer.progress import RunProgress
from offsite.targets.common.counters import Port
from tests.interfaces.live_system import PASSWORD, LiveSystem, running
from tests.management.management_bench import PASSWORD as BENCH_PASSWORD
from tests.management.management_bench import Bench, bench_in
from tests.systems import wait_until

DASHBOARD = Path(__file__).parents[3] / "dashboards" / "offsite-grafana.json"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(bench: Bench) -> Samples:
    """The value of each metric by its name and labels, as Prometheus reads the text."""
    content, content_type = metrics.exposition(bench.system, "")
    assert content_type.startswith("text/plain")
    found: Samples = {}
    for family in parse(content.decode()):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, "each is given once"
            found[key] = sample.value
    return found


def value(found: Samples, name: str, **labels: str) -> float:
    """The one sample of this name that has these labels, among others."""
    (only,) = [
        each for (each_name, of), each in found.items() if each_name == name and labels.items() <= dict(of).items()
    ]
    return only


def has(found: Samples, name: str) -> bool:
    return any(each == name for each, _ in found)


# Over the network


def get(live: LiveSystem, headers: Mapping[str, str]) -> tuple[int, str, str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(live.host, live.api_port, context=context, timeout=30)
    connection.request("GET", "/metrics", headers=dict(headers))
    response = connection.getresponse()
    content = response.read().decode()
    connection.close()
    return response.status, response.headers["Content-Type"], content


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_metrics_are_for_users_and_the_role_monitor_is_enough(live: LiveSystem) -> None:
    live.do("create", "user", "prometheus", environment={"OFFSITE_NEW_PASSWORD": PASSWORD})
    status, content_type, content = get(live, basic("prometheus", PASSWORD))
    assert status == 200
    assert content_type.startswith("text/plain; version=")
    assert f'version="{__version__}"' in content
    for headers in ({}, {"Authorization": "Bearer x"}, {"sessionKey": "0" * 32}, basic("prometheus", "a wrong guess")):
        status, _, content = get(live, headers)
        assert status == 401, headers
        assert "offsite_" not in content


@pytest.mark.slow
def test_guessing_at_a_password_is_stopped_as_at_login(tmp_path: Path) -> None:
    with running(tmp_path) as live:
        answers = [get(live, basic("manage", f"guess {n}"))[2] for n in range(12)]
        assert "from 127.0.0.1 failed; try again in" in answers[-1]
        assert get(live, basic("manage", PASSWORD))[0] == 401, "even the right one has to wait"


def test_the_control_socket_gives_them_without_a_password(live: LiveSystem) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(live.state / "control.sock"))
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        content = b""
        while chunk := connection.recv(65536):
            content += chunk
    assert content.startswith(b"HTTP/1.1 200")
    assert b'offsite_pool_size_bytes{pool="A"}' in content


def test_a_client_that_prefers_open_metrics_gets_it(live: LiveSystem) -> None:
    headers = basic("manage", PASSWORD) | {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
    status, content_type, content = get(live, headers)
    assert (status, content_type.partition(";")[0]) == (200, "application/openmetrics-text")
    families = parse_openmetrics(content)  # type: ignore[no-untyped-call]
    assert {family.name for family in families} >= {"offsite_build", "offsite_events"}


# What they say


def test_pools_events_and_the_build(bench: Bench) -> None:
    bench.do("create volume pool A size 8MiB Sales")
    bench.write("Sales", 0, b"x" * (1 << 20))
    bench.system.events.report(kinds.POOL_FULL, "Pool A is full.")
    found = samples(bench)
    (pool,) = bench.rows("show pools A")
    assert value(found, "offsite_pool_size_bytes", pool="A") == pool["total-size"]
    assert value(found, "offsite_pool_allocated_bytes", pool="A") == 1 << 20
    assert value(found, "offsite_pool_provisioned_bytes", pool="A") == 8 << 20
    assert value(found, "offsite_events_total", severity="critical") == 1
    assert value(found, "offsite_events_total", severity="error") == 0
    assert value(found, "offsite_build_info", version=__version__, system="London") == 1
    assert value(found, "offsite_start_timestamp_seconds") == bench.system.started_at


def test_what_hosts_do_by_volume_and_by_port(bench: Bench) -> None:
    """Also what ended connections did; a volume that no host has used, or that is deleted, has no metrics."""
    for name in ("Sales", "Unused", "Doomed"):
        bench.do(f"create volume pool A size 8MiB {name}")
    counters, port = bench.system.counters, Port("nbd", "127.0.0.1:10809")
    with counters.counting(bench.system.image("Doomed").image.uuid, "nbd:unix", port) as doomed:
        doomed.add_write(1, 1.0)
    with counters.counting(bench.system.image("Sales").image.uuid, "nbd:unix", port) as activity:
        activity.add_read(4096, 0.5)
        activity.add_write(512, 0.25)
        bench.do("delete volumes Doomed")
        found = samples(bench)
    for metric, expected in (
        ("read_bytes", 4096), ("read_seconds", 0.5), ("reads", 1), ("write_seconds", 0.25), ("writes", 1),
        ("written_bytes", 512),
    ):  # fmt: skip
        assert value(found, f"offsite_volume_{metric}_total") == expected, "one volume only has it"
        assert value(found, f"offsite_volume_{metric}_total", pool="A", volume="Sales") == expected
    assert value(found, "offsite_port_writes_total", protocol="nbd", address="127.0.0.1:10809") == 2
    assert value(found, "offsite_port_write_seconds_total", protocol="nbd") == 1.25


def test_messages_of_notices_are_counted(bench: Bench) -> None:
    bench.do("create notice severity error ops", secrets={"url": "json://127.0.0.1:1"})
    bench.system.events.report(kinds.POOL_FULL, "Pool A is full.")
    wait_until(
        "it was given up",
        lambda: value(samples(bench), "offsite_notice_messages_total", notice="ops", result="failed") == 1,
    )
    assert value(samples(bench), "offsite_notice_messages_total", notice="ops", result="sent") == 0


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with bench_in(tmp_path / "London", "London") as made:
        yield made


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Bench, Bench]]:
    """London and Newark, connected."""
    with ExitStack() as stack:
        london, newark = (stack.enter_context(bench_in(tmp_path / name, name)) for name in ("London", "Newark"))
        address = newark.system.addresses["peer"]
        london.do(
            f"create peer-connection remote-port-address {address} remote-username manage Newark",
            secrets={"remote-password": BENCH_PASSWORD},
        )
        yield london, newark


def create_set(london: Bench, number: int = 0) -> str:
    london.do(f"create volume pool A size 1MiB Sales{number}")
    london.do(f"create replication-set peer-connection Newark primary-volume Sales{number} DR{number}")
    return f"DR{number}"


def replicate(london: Bench, name: str) -> None:
    london.do(f"replicate {name}")
    wait_until("the run is over", lambda: london.system.replication.sets.get(name).current_run is None)


def test_a_set_before_its_first_run_has_no_lag(two: tuple[Bench, Bench]) -> None:
    london, _ = two
    name = create_set(london)
    found = samples(london)
    assert value(found, "offsite_set_status", set=name, status="Unsynchronized") == 1
    assert value(found, "offsite_set_status", set=name, status="Ready") == 0
    for absent in ("offsite_set_lag_seconds", "offsite_set_last_success_timestamp_seconds", "offsite_run_left_bytes"):
        assert not has(found, absent)
    assert value(found, "offsite_set_queued", set=name) == 0
    for result in metrics.RESULTS:
        assert value(found, "offsite_set_runs", set=name, result=result) == 0


def test_a_set_tells_its_lag_success_and_runs_on_both_systems(two: tuple[Bench, Bench]) -> None:
    london, newark = two
    name = create_set(london)
    replicate(london, name)
    replicate(london, name)
    wait_until("the secondary knows", lambda: newark.system.replication.sets.get(name).current_run is None)
    for bench, role, peer in ((london, "primary", "Newark"), (newark, "secondary", "London")):
        found = samples(bench)
        of = {"set": name, "role": role, "peer": peer}
        info = bench.system.replication.sets.get(name)
        assert info.lag_seconds is not None
        assert abs(value(found, "offsite_set_lag_seconds", **of) - info.lag_seconds) < 5
        assert value(found, "offsite_set_runs", result="success", **of) == 2
        ended = value(found, "offsite_set_last_success_timestamp_seconds", **of)
        assert abs(ended - time.time()) < 60
        assert value(found, "offsite_set_status", status="Ready", **of) == 1
        assert sum(each for (metric, _), each in found.items() if metric == "offsite_set_status") == 1
        assert value(found, "offsite_peer_online", peer=peer) == 1


def test_a_run_under_way_tells_how_far_it_is(two: tuple[Bench, Bench], monkeypatch: pytest.MonkeyPatch) -> None:
    london, _ = two
    name = create_set(london)
    set_id = london.system.replication.sets.record(name).id
    row = {"uuid": "r", "set_id": set_id, "state": "running", "started_at": 1.0, "changed_bytes": 0, "wire_bytes": 0}
    with london.system.database.transaction() as connection:
        connection.execute(runs_table.insert(), [row, row | {"uuid": "q", "state": "queued"}])
    progress = RunProgress("r", "sending", 25.0, 4000, 3000, 0, 0, 100.0, 1.0, None, 1234.5, None, None)
    monkeypatch.setattr(london.system.replication.dispatcher, "progress", lambda _: progress)
    found = samples(london)
    assert value(found, "offsite_run_size_bytes", set=name) == 4000
    assert value(found, "offsite_run_left_bytes", set=name) == 3000
    assert value(found, "offsite_run_rate_bytes_per_second", set=name) == 100
    assert value(found, "offsite_run_expected_end_timestamp_seconds", set=name) == 1234.5
    assert value(found, "offsite_set_queued", set=name) == 1

    waiting = RunProgress("r", "waiting", 25.0, 4000, 3000, 0, 0, 100.0, 1.0, None, None, "gone", ErrorClass.TRANSIENT)
    monkeypatch.setattr(london.system.replication.dispatcher, "progress", lambda _: waiting)
    found = samples(london)
    assert value(found, "offsite_run_rate_bytes_per_second", set=name) == 0, "nothing is being sent"
    assert not has(found, "offsite_run_expected_end_timestamp_seconds")


def test_a_peer_that_is_deleted_while_it_is_looked_at_is_not_there(
    two: tuple[Bench, Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    london, _ = two

    def gone(*_: object) -> bool:
        raise ObjectNotFound("it is gone")

    monkeypatch.setattr(Peers, "online", gone)
    assert value(samples(london), "offsite_peer_online", peer="Newark") == 0


@pytest.fixture
def many(two: tuple[Bench, Bench]) -> tuple[Bench, Bench]:
    """With 32 sets that have replicated."""
    london, newark = two
    for number in range(32):
        create_set(london, number)
        london.do(f"replicate DR{number}")
    sets = london.system.replication.sets
    wait_until("all runs are over", lambda: all(each.current_run is None for each in sets.all()))
    return london, newark


def best_seconds(work: Callable[[], object], times: int = 5) -> float:
    def once() -> float:
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun

    return min(once() for _ in range(times))


@pytest.mark.slow
def test_a_scrape_of_32_sets_is_quick_also_when_the_peer_has_gone(many: tuple[Bench, Bench]) -> None:
    _, newark = many
    reachability = newark.system.replication.peers.reachability
    for bench in many:
        assert best_seconds(lambda bench=bench: metrics.exposition(bench.system, "")) < 0.5  # type: ignore[misc]

    with Silent() as address:
        with newark.system.database.transaction() as connection:
            connection.exec_driver_sql("UPDATE peers SET address = ?", (address,))
        reachability.forget()
        begun = time.perf_counter()
        found = samples(newark)
        assert time.perf_counter() - begun < 1.5, "a peer that never answers is waited for once, not once a set"
    assert value(found, "offsite_peer_online", peer="London") == 0
    assert len([1 for (name, _), each in found.items() if name == "offsite_set_status" and each]) == 32


class Silent:
    """A port that takes connections and says nothing."""

    def __enter__(self) -> str:
        self._socket = socket.create_server(("127.0.0.1", 0))
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._socket.close()


# The dashboard


def test_the_dashboard_asks_only_for_metrics_that_there_are(bench: Bench) -> None:
    given = {family.name: family for family in parse(metrics.exposition(bench.system, "")[0].decode())}
    names = {f"{name}_total" if family.type == "counter" else name for name, family in given.items()}
    dashboard = json.loads(DASHBOARD.read_text())
    asked = set()
    for expression in expressions(dashboard):
        in_expression = set(re.findall(r"\boffsite_\w+", expression))
        assert in_expression, f"{expression} asks for nothing of ours"
        asked |= in_expression
    assert asked <= names, asked - names
    assert names - asked <= {"offsite_start_timestamp_seconds"}, "each is shown somewhere"


def expressions(dashboard: dict[str, Any]) -> list[str]:
    targets = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    variables = [each["definition"] for each in dashboard["templating"]["list"] if each["type"] == "query"]
    assert len(targets) > 15
    return targets + variables


def test_the_dashboard_can_be_imported_anywhere() -> None:
    """It names no data source of its own, its ids are unique, and no panel lies on another."""
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["schemaVersion"] >= 39
    assert "datasource" in {each["name"] for each in dashboard["templating"]["list"] if each["type"] == "datasource"}
    panels = dashboard["panels"]
    assert len({each["id"] for each in panels}) == len(panels)
    cells = set()
    for panel in panels:
        for part in (panel, *panel.get("targets", ())):
            assert part.get("datasource", {}).get("uid", "${datasource}") == "${datasource}"
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert x < 24, panel["title"]
                assert (x, y) not in cells, panel["title"]
                cells.add((x, y))
