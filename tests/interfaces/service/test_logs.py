"""Logs: a line for each event, fit for a terminal and for the journal."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Mapping

import pytest

PROGRAM = """
import logging, structlog
from offsite.interfaces.service import logs
logs.configure()
structlog.get_logger("offsite.test").warning("something happened", volume="Sales and more", code=7)
structlog.get_logger("offsite.test").debug("not shown")
logging.getLogger("library").info("not shown")
logging.getLogger("library").error("it broke: %s", "badly")
try:
    1 / 0
except ZeroDivisionError:
    structlog.get_logger("offsite.test").exception("a defect")
"""


def lines(environment: Mapping[str, str], program: str = PROGRAM) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", program], env=dict(environment), capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_each_event_is_one_line_of_pairs_with_time_and_level() -> None:
    first, second, third = lines({})
    time, rest = first.split(" ", 1)
    assert time.startswith("timestamp=20")
    assert time.endswith("Z")
    assert rest == 'level=warning logger=offsite.test event="something happened" volume="Sales and more" code=7'
    assert 'level=error logger=library event="it broke: badly"' in second
    assert "ZeroDivisionError" in third


def test_in_the_journal_the_time_is_left_out_and_the_level_is_a_prefix() -> None:
    first, second, _ = lines({"JOURNAL_STREAM": "8:1"})
    assert first == '<4>logger=offsite.test event="something happened" volume="Sales and more" code=7'
    assert second.startswith("<3>logger=library")


FORGING = """
import logging, structlog
from offsite.interfaces.service import logs
logs.configure()
evil = "a\\nlevel=error event=forged\\x1b[2J\\x9b2J\\u202e\\u2066\\r"
structlog.get_logger("offsite.test").warning(evil, name=evil, several=[evil], error=ValueError(evil))
logging.getLogger("library").error("%s", evil)
try:
    raise ValueError(evil)
except ValueError:
    structlog.get_logger("offsite.test").exception("a defect")
"""


@pytest.mark.parametrize("environment", [{}, {"JOURNAL_STREAM": "8:1"}], ids=["terminal", "journal"])
def test_nothing_that_is_logged_makes_a_line_of_its_own_or_reaches_the_terminal(environment: dict[str, str]) -> None:
    found = lines(environment, FORGING)
    assert len(found) == 3
    assert all(line.isprintable() for line in found)
    assert "\\x1b[2J" in found[0] and "\\u202e" in found[0]


def test_this_process_was_left_alone() -> None:
    assert logging.getLogger("offsite").level == logging.NOTSET
