"""The codec of the handshake: what is in bounds is read exactly, what is not is refused, nothing else happens."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsite.errors import ProtocolError
from offsite.targets.nbd import constants as nbd
from offsite.targets.nbd import options
from offsite.targets.nbd.options import InfoRequest, InvalidOption, MetaContextRequest

_names = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40)


def _encode(number: int, data: bytes) -> bytes:
    return struct.pack(">QII", nbd.OPTION_MAGIC, number, len(data)) + data


def _counted(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack(">I", len(encoded)) + encoded


@given(st.integers(0, 2**32 - 1), st.binary(max_size=60), st.binary(max_size=20))
def test_an_option_is_incomplete_up_to_its_last_byte(number: int, data: bytes, behind: bytes) -> None:
    encoded = _encode(number, data)
    for cut in range(len(encoded)):
        assert options.parse_option(encoded[:cut]) is None
    assert options.parse_option(encoded + behind) == (options.HandshakeOption(number, data), len(encoded))


@given(st.binary(min_size=1, max_size=80))
def test_garbage_for_an_option_raises_nothing_but_protocol_error(garbage: bytes) -> None:
    try:
        parsed = options.parse_option(garbage)
    except ProtocolError:
        return
    assert parsed is None  # only the first bytes of the magic number can have come to this
    assert garbage[:8] == nbd.OPTION_MAGIC.to_bytes(8, "big")[: len(garbage)]


def test_an_option_that_is_too_long_is_refused_before_its_data_arrive() -> None:
    header = struct.pack(">QII", nbd.OPTION_MAGIC, 3, nbd.OPTION_BYTES_MAX + 1)
    with pytest.raises(ProtocolError, match="65537 bytes"):
        options.parse_option(header)
    assert options.parse_option(struct.pack(">QII", nbd.OPTION_MAGIC, 3, nbd.OPTION_BYTES_MAX)) is None


@pytest.mark.parametrize("flags", [0, 1, 2, 3])
def test_client_flags_that_were_offered_are_taken(flags: int) -> None:
    assert options.parse_client_flags(flags.to_bytes(4, "big")) == flags


@pytest.mark.parametrize("flags", [4, 1 << 31])
def test_other_client_flags_end_the_session(flags: int) -> None:
    with pytest.raises(ProtocolError, match="bits that were not offered"):
        options.parse_client_flags(flags.to_bytes(4, "big"))


@given(_names, st.lists(st.integers(0, 0xFFFF), max_size=10))
def test_info_requests_come_back_as_they_were_sent(name: str, items: list[int]) -> None:
    data = _counted(name) + struct.pack(f">H{len(items)}H", len(items), *items)
    assert options.parse_info_request(data) == InfoRequest(name, frozenset(items))


@given(_names, st.lists(_names.map(lambda text: f"x:{text}"), max_size=5))
def test_meta_context_requests_come_back_as_they_were_sent(name: str, queries: list[str]) -> None:
    data = _counted(name) + struct.pack(">I", len(queries)) + b"".join(map(_counted, queries))
    assert options.parse_meta_context_request(data) == MetaContextRequest(name, tuple(queries))


@pytest.mark.parametrize("parse", [options.parse_info_request, options.parse_meta_context_request])
@given(data=st.one_of(st.binary(max_size=80), st.binary(max_size=40).map(lambda more: _counted("name") + more)))
def test_garbage_in_an_option_raises_nothing_but_invalid_option(parse: Callable[[bytes], object], data: bytes) -> None:
    try:
        parse(data)
    except InvalidOption:
        return


@pytest.mark.parametrize(
    ("parse", "data", "sentence"),
    [
        (options.parse_info_request, b"", "length of a string is missing"),
        (options.parse_info_request, _counted("a") + b"\0", "number of information requests is missing"),
        (options.parse_info_request, _counted("a") + b"\0\x02\0\0", "2 information requests"),
        (options.parse_info_request, _counted("a") + b"\0\0left", "0 information requests"),
        (options.parse_info_request, struct.pack(">I", 2**32 - 1) + b"abc\0\0", "goes beyond"),
        (options.parse_info_request, struct.pack(">I", 4097) + b"a" * 4097 + b"\0\0", "4097 bytes; at most 4096"),
        (options.parse_info_request, _counted("nul\0") + b"\0\0", "holds a NUL"),
        (options.parse_info_request, struct.pack(">I", 1) + b"\xff\0\0", "not UTF-8"),
        (options.parse_meta_context_request, _counted("a"), "number of queries is missing"),
        (options.parse_meta_context_request, _counted("a") + b"\xff\xff\xff\xff", "length of a string is missing"),
        (options.parse_meta_context_request, _counted("a") + b"\0\0\0\x01" + _counted("base"), "lacks the colon"),
        (options.parse_meta_context_request, _counted("a") + b"\0\0\0\0rest", "4 bytes are left over"),
        (options.parse_export_name, b"a" * 4097, "4097 bytes"),
    ],
)
def test_data_out_of_form_is_refused_with_what_is_wrong(
    parse: Callable[[bytes], object], data: bytes, sentence: str
) -> None:
    with pytest.raises(InvalidOption, match=sentence):
        parse(data)


def test_error_sentences_are_cut_to_the_specifications_length() -> None:
    reply = options.error_reply(7, nbd.REP_ERR_UNKNOWN, "x" * 5000)
    assert struct.unpack_from(">QIII", reply) == (nbd.OPTION_REPLY_MAGIC, 7, nbd.REP_ERR_UNKNOWN, 4096)
