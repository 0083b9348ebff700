"""Telling the service manager: over a socket in the file system, an abstract one, or not at all."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from offsite.interfaces.service.readiness import notify


@pytest.mark.parametrize("abstract", [False, True])
def test_the_state_is_sent_to_the_socket_that_the_manager_names(short_directory: Path, abstract: bool) -> None:
    address = f"@offsite-test-{os.getpid()}" if abstract else str(short_directory / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(5)
        manager.bind("\0" + address[1:] if abstract else address)
        notify("READY=1", {"NOTIFY_SOCKET": address})
        assert manager.recv(100) == b"READY=1"


def test_without_a_manager_nothing_happens() -> None:
    notify("READY=1", {})
    notify("READY=1", {"NOTIFY_SOCKET": "vsock:1"})
