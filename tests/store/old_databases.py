"""Databases as older versions made them."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config

from offsite.store import database as database_module


def make_older(path: Path, revision: str) -> None:
    """A database as it was made by the version of Offsite whose newest migration this is."""
    config = Config()
    config.set_main_option("script_location", str(database_module._MIGRATIONS))
    engine = database_module._engine(path)
    with engine.connect() as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()
