"""docs/monitoring.md names the metrics and schemes that there are."""

from __future__ import annotations

import re
from pathlib import Path

from offsite.interfaces.http import metrics
from offsite.management.notices.urls import SCHEMES
from tests.management.management_bench import bench_in

PAGE = (Path(__file__).parents[3] / "docs" / "monitoring.md").read_text()


def test_the_page_names_every_metric_and_no_other(tmp_path: Path) -> None:
    with bench_in(tmp_path / "London", "London") as bench:
        text = metrics.exposition(bench.system, "")[0].decode()
    given = set(re.findall(r"^# TYPE (offsite_\w+)", text, re.MULTILINE))
    assert set(re.findall(r"\boffsite_[a-z_]+[a-z]\b", PAGE)) == given


def test_the_page_names_every_scheme() -> None:
    table = PAGE[PAGE.index("| to | schemes |") : PAGE.index("Others of apprise")]
    named: set[str] = set()
    for scheme, plural in re.findall(r"`([a-z]+)(\(s\))?`", table):
        named |= {scheme, f"{scheme}s"} if plural else {scheme}
    assert SCHEMES - named <= {"victorops", "wxteams"}, "other names of splunk and webex"
    assert named <= SCHEMES
