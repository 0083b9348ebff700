"""The codec of the handshake: bytes to options, and the replies to them. It does no I/O.

Sections "Fixed newstyle negotiation", "Option types" and "Option reply types" of the NBD protocol.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from offsite.errors import ProtocolError
from offsite.targets.nbd import constants as nbd
from offsite.targets.nbd import sentences

_GREETING = struct.Struct(">QQH")
_OPTION = struct.Struct(">QII")
_REPLY = struct.Struct(">QIII")
_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")

CLIENT_FLAGS_BYTES = 4
_SERVER_FLAGS = nbd.FLAG_FIXED_NEWSTYLE | nbd.FLAG_NO_ZEROES


class InvalidOption(Exception):
    """The data of an option is not of its form: answered with NBD_REP_ERR_INVALID, the session goes on."""


@dataclass(frozen=True, slots=True)
class HandshakeOption:
    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class InfoRequest:
    """Data of NBD_OPT_INFO and NBD_OPT_GO."""

    name: str
    items: frozenset[int]


@dataclass(frozen=True, slots=True)
class MetaContextRequest:
    """Data of NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT."""

    name: str
    queries: tuple[str, ...]


def greeting() -> bytes:
    return _GREETING.pack(nbd.NBD_MAGIC, nbd.OPTION_MAGIC, _SERVER_FLAGS)


def parse_client_flags(data: bytes | bytearray) -> int:
    """The flags in the first CLIENT_FLAGS_BYTES of `data`. Raises ProtocolError for one that is unknown."""
    flags = int(_U32.unpack_from(data)[0])
    if flags & ~_SERVER_FLAGS:
        raise ProtocolError(f"client flags {flags:#x} contain bits that were not offered")
    return flags


def parse_option(data: bytes | bytearray) -> tuple[HandshakeOption, int] | None:
    """The option that `data` begins with, and its length in bytes; None while it is incomplete.

    Raises ProtocolError for what is no option, as soon as that can be told, and for one that is too long.
    """
    magic_bytes = nbd.OPTION_MAGIC.to_bytes(8, "big")
    if data[:8] != magic_bytes[: len(data)]:
        raise ProtocolError(f"option begins with {bytes(data[:8]).hex()}, not with {magic_bytes.hex()}")
    if len(data) < _OPTION.size:
        return None
    _, number, length = _OPTION.unpack_from(data)
    if length > nbd.OPTION_BYTES_MAX:
        raise ProtocolError(f"option {number} of {length} bytes; at most {nbd.OPTION_BYTES_MAX} are taken")
    end = _OPTION.size + length
    if len(data) < end:
        return None
    return HandshakeOption(number, bytes(data[_OPTION.size : end])), end


def parse_export_name(data: bytes) -> str:
    """The data of NBD_OPT_EXPORT_NAME. Raises InvalidOption."""
    return _string(data)


def parse_info_request(data: bytes) -> InfoRequest:
    """Raises InvalidOption."""
    name, at = _counted_string(data, 0)
    if len(data) < at + 2:
        raise InvalidOption("the number of information requests is missing")
    count = _U16.unpack_from(data, at)[0]
    if len(data) != at + 2 + 2 * count:
        raise InvalidOption(f"{count} information requests do not fill the option's {len(data)} bytes")
    return InfoRequest(name, frozenset(struct.unpack_from(f">{count}H", data, at + 2)))


def parse_meta_context_request(data: bytes) -> MetaContextRequest:
    """Raises InvalidOption."""
    name, at = _counted_string(data, 0)
    if len(data) < at + 4:
        raise InvalidOption("the number of queries is missing")
    count = _U32.unpack_from(data, at)[0]
    at += 4
    queries = []
    for _ in range(count):  # ends by the data's end at the latest: each query takes 4 bytes or more
        query, at = _counted_string(data, at)
        if ":" not in query:
            raise InvalidOption(f"query {query!r} lacks the colon after its namespace")
        queries.append(query)
    if at != len(data):
        raise InvalidOption(f"{len(data) - at} bytes are left over after {count} queries")
    return MetaContextRequest(name, tuple(queries))


def reply(option: int, kind: int, data: bytes = b"") -> bytes:
    return _REPLY.pack(nbd.OPTION_REPLY_MAGIC, option, kind, len(data)) + data


def error_reply(option: int, kind: int, sentence: str) -> bytes:
    return reply(option, kind, sentences.encode(sentence))


def server_reply(name: str, description: str) -> bytes:
    """NBD_REP_SERVER: one export of the list."""
    encoded = name.encode()
    data = _U32.pack(len(encoded)) + encoded + description.encode()
    return reply(nbd.OPT_LIST, nbd.REP_SERVER, data)


def info_reply(option: int, item: int, payload: bytes) -> bytes:
    return reply(option, nbd.REP_INFO, _U16.pack(item) + payload)


def meta_context_reply(option: int, context_id: int, name: str) -> bytes:
    return reply(option, nbd.REP_META_CONTEXT, _U32.pack(context_id) + name.encode())


def export_payload(size_bytes: int, transmission_flags: int) -> bytes:
    """Of NBD_INFO_EXPORT, and the answer to NBD_OPT_EXPORT_NAME less its zeroes."""
    return struct.pack(">QH", size_bytes, transmission_flags)


def block_size_payload() -> bytes:
    return struct.pack(
        ">III", nbd.BLOCK_BYTES_MINIMUM, nbd.BLOCK_BYTES_PREFERRED, nbd.PAYLOAD_BYTES_MAX
    )  # fmt: skip


def _counted_string(data: bytes, at: int) -> tuple[str, int]:
    """The string at `at` behind its 32-bit length, and where it ends."""
    if len(data) < at + 4:
        raise InvalidOption("the length of a string is missing")
    start = at + 4
    end = start + _U32.unpack_from(data, at)[0]
    if end > len(data):
        raise InvalidOption(f"a string of {end - start} bytes goes beyond the option's {len(data)} bytes")
    return _string(data[start:end]), end


def _string(data: bytes) -> str:
    if len(data) > nbd.STRING_BYTES_MAX:
        raise InvalidOption(f"a string of {len(data)} bytes; at most {nbd.STRING_BYTES_MAX} are allowed")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise InvalidOption(f"a string that is not UTF-8: {error}") from error
    if "\0" in text:
        raise InvalidOption("a string that holds a NUL")
    return text
