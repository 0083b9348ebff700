"""Frames: how messages and their payloads lie in the byte stream between two systems. No I/O here.

    magic "OFS1" · length of the message, uint32 · length of the payload, uint32 · message · payload

Numbers are little endian. The message is one of `messages`, as msgpack; only a Batch has a payload.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import msgspec

from offsite.errors import ProtocolError
from offsite.replication.wire.message_rules import checked
from offsite.replication.wire.messages import AnyMessage, Batch

MAGIC = b"OFS1"
HEAD_BYTES = 12
MESSAGE_BYTES_MAX = 1 << 16
PAYLOAD_BYTES_MAX = (1 << 21) + (1 << 18)

_head = struct.Struct("<4sII")
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)


@dataclass(frozen=True, slots=True)
class Head:
    """The start of a frame: how many bytes of message and of payload follow."""

    message_bytes: int
    payload_bytes: int


def encode(message: AnyMessage, payload_bytes: int = 0) -> bytes:
    """All of a frame but its payload, which the caller sends right behind."""
    body = _encoder.encode(message)
    if len(body) > MESSAGE_BYTES_MAX or payload_bytes > PAYLOAD_BYTES_MAX:
        raise ProtocolError(
            f"a {type(message).__name__} of {len(body)} bytes with {payload_bytes} bytes of payload is too large to "
            f"send; at most {MESSAGE_BYTES_MAX} and {PAYLOAD_BYTES_MAX} are allowed"
        )
    return _head.pack(MAGIC, len(body), payload_bytes) + body


def decode_head(head: bytes | memoryview, *, payload_allowed: bool) -> Head:
    """Of the first HEAD_BYTES of a frame. Raises ProtocolError: nothing more is to be read then."""
    magic, message_bytes, payload_bytes = _head.unpack(head)
    if magic != MAGIC:
        raise ProtocolError(f"a frame begins with {magic!r} instead of {MAGIC!r}: not a system of Offsite")
    if message_bytes > MESSAGE_BYTES_MAX:
        raise ProtocolError(
            f"a message of {message_bytes} bytes was announced; at most {MESSAGE_BYTES_MAX} are allowed"
        )
    most = PAYLOAD_BYTES_MAX if payload_allowed else 0
    if payload_bytes > most:
        raise ProtocolError(f"a payload of {payload_bytes} bytes was announced; at most {most} are allowed")
    return Head(message_bytes, payload_bytes)


def decode_message(body: bytes | memoryview, payload_bytes: int = 0) -> AnyMessage:
    """Raises ProtocolError for a message that is unknown, malformed, out of bounds, or may have no payload."""
    try:
        message = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"cannot decode a message: {error}") from error
    if payload_bytes and not isinstance(message, Batch):
        raise ProtocolError(f"a {type(message).__name__} has {payload_bytes} bytes of payload; none is allowed")
    return checked(message)
