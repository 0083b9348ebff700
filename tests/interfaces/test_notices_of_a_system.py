"""Notices of a system in a process of its own: from the command to the web hook, through a restart and a stop."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interfaces.live_system import LiveSystem, running
from tests.management.notice_receivers import WebHook, web_hook
from tests.systems import wait_until

SECRET = "s3cr3tS3cr3t"


def told(hook: WebHook) -> str:
    return "\n".join(body["message"] for _, _, body in hook.received)


def create(live: LiveSystem, hook: WebHook) -> None:
    url = f"json://london:{SECRET}@127.0.0.1:{hook.port}/{SECRET}"
    live.do("create", "notice", "severity", "informational", "ops", environment={"OFFSITE_NOTICE_URL": url})


@pytest.mark.slow
def test_events_reach_a_web_hook_up_to_the_stop_and_after_the_next_start(tmp_path: Path) -> None:
    with web_hook() as hook:
        with running(tmp_path) as live:
            create(live, hook)
            wait_until("its creation arrives", lambda: "Notice ops" in told(hook))
            live.do("create", "volume", "pool", "A", "size", "1MiB", "Sales")
        assert "Volume Sales of 1 MiB was created" in told(hook), "a stop does not wait for the interval to pass"
        assert "System London is stopping." in told(hook)
        with running(tmp_path) as live:
            wait_until("the start arrives", lambda: "System London was started." in told(hook))
            assert SECRET not in live.logged()
