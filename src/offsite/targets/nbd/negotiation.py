"""The handshake of one connection as a state machine: bytes in, bytes out, no I/O.

    FLAGS ──client's flags──▶ OPTIONS ──EXPORT_NAME, GO──▶ TRANSMISSION   (`outcome` is set)
                               ▲   │ └──ABORT, name that is not there or no place with EXPORT_NAME──▶ ENDED
                               │   │
             tls_started(…) ───┘   └──STARTTLS──▶ TLS                     (the caller shakes hands)

Any other option leaves the state as it is. ProtocolError, after which the connection is closed, comes from
FLAGS and OPTIONS when the bytes are not of the protocol, or when more of them follow STARTTLS: those were
sent in the clear, and anyone may have put them there.

While TLS is required and not started, every option but STARTTLS and ABORT is refused (mode FORCEDTLS of the
specification); when it is merely offered, the client may use it (SELECTIVETLS without TLS-only exports).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Protocol

from offsite.errors import ProtocolError
from offsite.targets.common.connection import TlsMode
from offsite.targets.common.grants import Grant
from offsite.targets.nbd import constants as nbd
from offsite.targets.nbd import options
from offsite.targets.nbd.options import HandshakeOption, InvalidOption

_ALLOCATION_ID = 1  # of base:allocation; the specification leaves the number to us


class State(Enum):
    FLAGS = "waits for the client's flags"
    OPTIONS = "negotiates options"
    TLS = "waits for the TLS handshake"
    TRANSMISSION = "is over: an export was chosen"
    ENDED = "is over: nothing was chosen"


class Lookup(Protocol):
    """The exports as one initiator sees them."""

    def visible(self) -> list[Grant]: ...

    def find(self, name: str) -> Grant | None: ...

    def refusal(self) -> str:
        """Why the initiator may not have a connection more; empty if it may, and then this is counted as one."""
        ...


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What was agreed on."""

    export: Grant
    structured_replies: bool
    allocation_id: int | None  # of the context base:allocation, if it was selected


class Negotiation:
    def __init__(self, lookup: Lookup, tls: TlsMode) -> None:
        self.state = State.FLAGS
        self.outcome: Negotiated | None = None
        self._lookup = lookup
        self._tls = tls
        self._received = bytearray()
        self._client_flags = 0
        self._structured = False
        self._context_name: str | None = None  # export that base:allocation was selected for

    def greeting(self) -> bytes:
        """What to send before anything is received."""
        return options.greeting()

    def receive(self, data: bytes | memoryview) -> bytes:
        """Takes what came from the client, returns what to send. Raises ProtocolError."""
        self._received += data
        out = bytearray()
        if self.state is State.FLAGS and len(self._received) >= options.CLIENT_FLAGS_BYTES:
            self._client_flags = options.parse_client_flags(self._received)
            if self._tls == "required" and not self._client_flags & nbd.FLAG_FIXED_NEWSTYLE:
                raise ProtocolError("the client cannot use TLS (no fixed newstyle), and TLS is required here")
            del self._received[: options.CLIENT_FLAGS_BYTES]
            self.state = State.OPTIONS
        while self.state is State.OPTIONS and (parsed := options.parse_option(self._received)):
            option, length = parsed
            del self._received[:length]
            out += self._answer(option)
        if self.state is State.TLS and self._received:
            raise ProtocolError("bytes in the clear follow NBD_OPT_STARTTLS")
        return bytes(out)

    def left_over(self) -> bytes:
        """What was received behind the option that began the transmission."""
        return bytes(self._received)

    def tls_started(self, lookup: Lookup) -> None:
        """The TLS handshake is done; `lookup` is for the initiator as it is known now."""
        self.state = State.OPTIONS
        self._lookup = lookup
        self._tls = "off"
        self._structured = False  # nothing that was said in the clear is kept
        self._context_name = None

    def _answer(self, option: HandshakeOption) -> bytes:
        if option.number == nbd.OPT_STARTTLS:
            return self._start_tls(option)
        if option.number == nbd.OPT_ABORT:
            self.state = State.ENDED
            return options.reply(option.number, nbd.REP_ACK)
        if option.number == nbd.OPT_EXPORT_NAME:
            return self._export_name(option)
        if self._tls == "required":
            return _error(option, nbd.REP_ERR_TLS_REQD, "TLS is required: send NBD_OPT_STARTTLS first")
        answer = self._ANSWERS.get(option.number)
        if answer is None:
            return _error(option, nbd.REP_ERR_UNSUP, f"option {option.number} is unknown")
        try:
            return answer(self, option)
        except InvalidOption as error:
            return _error(option, nbd.REP_ERR_INVALID, str(error))

    def _start_tls(self, option: HandshakeOption) -> bytes:
        if option.data or self._tls == "off":
            why = "takes no data" if option.data else "is not available, or is active already"
            return _error(option, nbd.REP_ERR_INVALID, f"TLS {why}")
        self.state = State.TLS
        return options.reply(option.number, nbd.REP_ACK)

    def _export_name(self, option: HandshakeOption) -> bytes:
        """NBD_OPT_EXPORT_NAME, which cannot be answered with an error: the session ends instead."""
        self.state = State.ENDED
        if self._tls == "required":
            raise ProtocolError("NBD_OPT_EXPORT_NAME without TLS, which is required here")
        try:
            export = self._lookup.find(options.parse_export_name(option.data))
        except InvalidOption as error:
            raise ProtocolError(f"NBD_OPT_EXPORT_NAME with {error}") from error
        if export is None or self._lookup.refusal():
            return b""
        zeroes = b"" if self._client_flags & nbd.FLAG_NO_ZEROES else bytes(124)
        return options.export_payload(export.size_bytes, self._choose(export)) + zeroes

    def _list(self, option: HandshakeOption) -> bytes:
        _expect_no_data(option)
        replies = [options.server_reply(export.name, export.description) for export in self._lookup.visible()]
        return b"".join(replies) + options.reply(option.number, nbd.REP_ACK)

    def _info(self, option: HandshakeOption) -> bytes:
        """NBD_OPT_INFO and NBD_OPT_GO."""
        request = options.parse_info_request(option.data)
        export = self._lookup.find(request.name)
        if export is None:
            return _unknown(option, request.name)
        if option.number == nbd.OPT_GO:
            refusal = self._lookup.refusal()
            if refusal:
                return _error(option, nbd.REP_ERR_POLICY, refusal)
            flags = self._choose(export)
        else:
            flags = transmission_flags(export, structured_replies=self._structured)
        items = {nbd.INFO_EXPORT: options.export_payload(export.size_bytes, flags)}
        for item, payload in (
            (nbd.INFO_NAME, export.name.encode()),
            (nbd.INFO_DESCRIPTION, export.description.encode()),
            (nbd.INFO_BLOCK_SIZE, options.block_size_payload()),
        ):
            if item in request.items:
                items[item] = payload
        replies = [options.info_reply(option.number, item, payload) for item, payload in items.items()]
        return b"".join(replies) + options.reply(option.number, nbd.REP_ACK)

    def _structured_reply(self, option: HandshakeOption) -> bytes:
        _expect_no_data(option)
        self._structured = True
        return options.reply(option.number, nbd.REP_ACK)

    def _meta_context(self, option: HandshakeOption) -> bytes:
        """NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT."""
        setting = option.number == nbd.OPT_SET_META_CONTEXT
        if setting:
            self._context_name = None  # also when it fails, as the specification has it
        if not self._structured:
            raise InvalidOption("structured replies must be agreed on before metadata contexts")
        request = options.parse_meta_context_request(option.data)
        if self._lookup.find(request.name) is None:
            return _unknown(option, request.name)
        found = nbd.BASE_ALLOCATION in request.queries
        if setting:
            if found:
                self._context_name = request.name
        else:
            found = found or not request.queries or "base:" in request.queries
        identity = _ALLOCATION_ID if setting else 0
        reply = options.meta_context_reply(option.number, identity, nbd.BASE_ALLOCATION) if found else b""
        return reply + options.reply(option.number, nbd.REP_ACK)

    def _choose(self, export: Grant) -> int:
        """Ends the negotiation with `export`; returns its transmission flags."""
        context = _ALLOCATION_ID if self._context_name == export.name else None
        self.outcome = Negotiated(export, self._structured, context)
        self.state = State.TRANSMISSION
        return transmission_flags(export, structured_replies=self._structured)

    _ANSWERS: ClassVar[dict[int, Callable[[Negotiation, HandshakeOption], bytes]]] = {
        nbd.OPT_LIST: _list,
        nbd.OPT_INFO: _info,
        nbd.OPT_GO: _info,
        nbd.OPT_STRUCTURED_REPLY: _structured_reply,
        nbd.OPT_LIST_META_CONTEXT: _meta_context,
        nbd.OPT_SET_META_CONTEXT: _meta_context,
    }


def transmission_flags(export: Grant, *, structured_replies: bool) -> int:
    """Section "Transmission flags". A flush is for the whole pool, so several connections are safe."""
    flags = nbd.FLAG_HAS_FLAGS | nbd.FLAG_SEND_FLUSH | nbd.FLAG_SEND_FUA | nbd.FLAG_CAN_MULTI_CONN
    flags |= nbd.FLAG_SEND_CACHE | nbd.FLAG_SEND_TRIM | nbd.FLAG_SEND_WRITE_ZEROES | nbd.FLAG_SEND_FAST_ZERO
    if export.read_only:
        flags |= nbd.FLAG_READ_ONLY
    if structured_replies:
        flags |= nbd.FLAG_SEND_DF
    return flags


def _expect_no_data(option: HandshakeOption) -> None:
    if option.data:
        raise InvalidOption(f"option {option.number} takes no data, {len(option.data)} bytes came")


def _unknown(option: HandshakeOption, name: str) -> bytes:
    return _error(option, nbd.REP_ERR_UNKNOWN, f"no export {name!r} is mapped to this initiator")


def _error(option: HandshakeOption, kind: int, sentence: str) -> bytes:
    return options.error_reply(option.number, kind, sentence)
