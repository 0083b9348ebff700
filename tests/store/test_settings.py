"""Settings keep what a user chose, and refuse what is outside their limits with nothing changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from offsite.errors import BadParameter
from offsite.store import settings as module
from offsite.store.database import Database
from offsite.store.settings import ALL, RETRY_CADENCE, RUNS_AT_A_TIME, Setting, Settings


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    database = Database(tmp_path / "state.db")
    yield Settings(database)
    database.close()


def test_a_setting_has_its_default_until_it_is_set(settings: Settings) -> None:
    assert settings.get(RUNS_AT_A_TIME) == 2
    settings.set(RUNS_AT_A_TIME, "7")
    assert settings.get(RUNS_AT_A_TIME) == 7
    settings.set(RUNS_AT_A_TIME, "2")
    assert settings.get(RUNS_AT_A_TIME) == 2


@pytest.mark.parametrize("text", ["0", "65", "-1", "1.5", "", "two", "²"])
def test_a_number_outside_its_limits_is_refused(settings: Settings, text: str) -> None:
    settings.set(RUNS_AT_A_TIME, "7")
    with pytest.raises(BadParameter, match="1 to 64"):
        settings.set(RUNS_AT_A_TIME, text)
    assert settings.get(RUNS_AT_A_TIME) == 7


def test_a_word_that_is_not_known_is_refused(settings: Settings) -> None:
    with pytest.raises(BadParameter, match="offsite, me4"):
        settings.set(RETRY_CADENCE, "never")
    assert settings.get(RETRY_CADENCE) == "offsite"


def test_every_setting_of_the_module_can_be_shown_and_set() -> None:
    there = [each for each in vars(module).values() if isinstance(each, Setting)]
    assert {each.name for each in there} == {each.name for each in ALL}
    assert len(there) == len(ALL)
