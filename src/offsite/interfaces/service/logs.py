"""Logs of a system: one line of key=value pairs for each thing that happened, on stderr.

Under systemd the journal adds the time and takes the level from a prefix (sd-daemon(3)); elsewhere both are
part of the line.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

from offsite.escaping import escaped

_SYSLOG_LEVELS = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


def configure(environment: Mapping[str, str] = os.environ) -> None:
    """Sends the logs of this process, and those of the libraries from warnings on, to stderr."""
    journal = "JOURNAL_STREAM" in environment
    times: list[Any] = [] if journal else [structlog.processors.TimeStamper(fmt="iso", utc=True)]
    shared: list[Any] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        *times,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _JournalRenderer() if journal else structlog.processors.LogfmtRenderer(key_order=_FIRST),
                _escape,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("offsite").setLevel(logging.INFO)


_FIRST = ["timestamp", "level", "logger", "event"]


def _escape(_logger: Any, _name: str, line: Any) -> str:
    """A line of the log is one line, and does nothing to the terminal that it is read on."""
    return escaped(str(line))


class _JournalRenderer:
    def __init__(self) -> None:
        self._render = structlog.processors.LogfmtRenderer(key_order=["logger", "event"])

    def __call__(self, logger: Any, name: str, fields: MutableMapping[str, Any]) -> str:
        level = _SYSLOG_LEVELS.get(str(fields.pop("level", "info")), 6)
        return f"<{level}>{self._render(logger, name, fields)}"
