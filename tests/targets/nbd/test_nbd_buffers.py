"""The buffers of a connection lie where copies into them are fast."""

from __future__ import annotations

import ctypes

import pytest

from offsite.targets.common.buffers import new_buffer
from offsite.targets.nbd import requests as codec


@pytest.mark.parametrize("header_bytes", [codec.DATA_CHUNK_BYTES, codec.SIMPLE_REPLY_BYTES, codec.REQUEST_BYTES])
def test_data_behind_a_header_does_not_begin_just_behind_the_start_of_a_page(header_bytes: int) -> None:
    buffer = new_buffer(1 << 20)
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer)) + header_bytes
    assert len(buffer) == 1 << 20
    assert 32 <= address % 4096 <= 4096 - 512
    assert not any(buffer[:4096])
