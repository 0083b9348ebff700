"""What all tests share: real programs that a test needs, and what happens when they are not there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes is the machine's affair: on a busy one a deadline would fail what is right.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

pytest.register_assert_rewrite("tests")  # so that what tests share tells as much about its failures as tests do


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(program, …): real programs, from Debian's packages, that the test runs")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and os.geteuid() != 0:
        _leave_out(item, "it needs root")
    for marker in item.iter_markers("needs"):
        missing = [program for program in marker.args if shutil.which(program) is None]
        if missing:
            _leave_out(item, f"{', '.join(missing)} is not installed")


def _leave_out(item: pytest.Item, why: str) -> None:
    # As root `make test` has installed everything, so what is missing is a fault and not a circumstance.
    if os.geteuid() == 0:
        pytest.fail(f"{item.name}: {why}", pytrace=False)
    pytest.skip(why)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """From the reports, which also come from tests that ran in processes of their own."""
    left_out = terminalreporter.stats.get("skipped", [])
    if left_out:
        terminalreporter.section("LEFT OUT, because this is not root or a program is missing")
        for report in left_out:
            terminalreporter.write_line(f"{report.nodeid}: {report.longrepr[2]}")


@pytest.fixture
def short_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose path is short enough for Unix sockets (108 bytes)."""
    return tmp_path_factory.mktemp("s")
