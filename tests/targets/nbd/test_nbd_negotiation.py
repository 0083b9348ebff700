"""The handshake as a state machine: a table of what each option gets in each situation, and any bytes at all."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offsite.errors import ProtocolError
from offsite.pools.protocol import ImageInfo, Pool
from offsite.targets.common.connection import TlsMode
from offsite.targets.common.grants import Grant
from offsite.targets.nbd import constants as nbd
from offsite.targets.nbd.negotiation import Negotiation, State, transmission_flags

FIXED = 1
FIXED_NO_ZEROES = 3


def _export(name: str, *, read_only: bool = False) -> Grant:
    image = ImageInfo(1, "u", "A", name, "volume", None, 1 << 30, 0.0, 0)
    return Grant(image, cast(Pool, None), read_only)


@dataclass
class Shelf:
    """A Lookup of fixed exports."""

    exports: list[Grant]
    full: str = ""

    def visible(self) -> list[Grant]:
        return self.exports

    def find(self, name: str) -> Grant | None:
        return next((export for export in self.exports if export.name == name), None)

    def refusal(self) -> str:
        return self.full


SHELF = Shelf([_export("archive", read_only=True), _export("Sales")])
EMPTY = Shelf([])


def _started(tls: TlsMode = "off", flags: int = FIXED_NO_ZEROES, shelf: Shelf = SHELF) -> Negotiation:
    negotiation = Negotiation(shelf, tls)
    assert negotiation.receive(flags.to_bytes(4, "big")) == b""
    return negotiation


def _option(number: int, data: bytes = b"") -> bytes:
    return struct.pack(">QII", nbd.OPTION_MAGIC, number, len(data)) + data


def _info(name: str, *items: int) -> bytes:
    encoded = name.encode()
    return struct.pack(f">I{len(encoded)}sH{len(items)}H", len(encoded), encoded, len(items), *items)


def _meta(name: str, *queries: str) -> bytes:
    parts = [part.encode() for part in (name, *queries)]
    counted = [struct.pack(">I", len(part)) + part for part in parts]
    return counted[0] + struct.pack(">I", len(queries)) + b"".join(counted[1:])


def _replies(data: bytes) -> list[tuple[int, int, bytes]]:
    """(option, kind, data) of each reply."""
    found = []
    while data:
        magic, option, kind, length = struct.unpack_from(">QIII", data)
        assert magic == nbd.OPTION_REPLY_MAGIC
        found.append((option, kind, data[20 : 20 + length]))
        data = data[20 + length :]
    return found


def _kinds(data: bytes) -> list[int]:
    return [kind for _, kind, _ in _replies(data)]


def test_the_greeting_offers_fixed_newstyle_without_zeroes() -> None:
    assert Negotiation(SHELF, "off").greeting() == b"NBDMAGIC" + b"IHAVEOPT" + b"\0\x03"


def test_list_tells_the_visible_exports_and_what_they_are() -> None:
    *servers, last = _replies(_started().receive(_option(nbd.OPT_LIST)))
    assert [data[4 : 4 + struct.unpack_from(">I", data)[0]] for _, _, data in servers] == [b"archive", b"Sales"]
    assert servers[0][2].endswith(b"volume of 1 GiB in pool A, read-only")
    assert last == (nbd.OPT_LIST, nbd.REP_ACK, b"")


def test_nothing_is_listed_where_nothing_is_mapped() -> None:
    assert _kinds(_started(shelf=EMPTY).receive(_option(nbd.OPT_LIST))) == [nbd.REP_ACK]


def test_info_gives_what_was_asked_for_and_stays() -> None:
    negotiation = _started()
    items = (nbd.INFO_BLOCK_SIZE, nbd.INFO_NAME, nbd.INFO_DESCRIPTION, 999)
    *infos, last = _replies(negotiation.receive(_option(nbd.OPT_INFO, _info("Sales", *items))))
    assert last[1] == nbd.REP_ACK
    told = {struct.unpack_from(">H", data)[0]: data[2:] for _, kind, data in infos if kind == nbd.REP_INFO}
    assert told == {
        nbd.INFO_EXPORT: struct.pack(">QH", 1 << 30, transmission_flags(_export("Sales"), structured_replies=False)),
        nbd.INFO_NAME: b"Sales",
        nbd.INFO_DESCRIPTION: b"volume of 1 GiB in pool A, read-write",
        nbd.INFO_BLOCK_SIZE: struct.pack(">III", 1, 4096, 32 << 20),
    }
    assert negotiation.state is State.OPTIONS


def test_go_tells_the_same_and_begins_the_transmission() -> None:
    negotiation = _started()
    info = _replies(negotiation.receive(_option(nbd.OPT_INFO, _info("Sales"))))
    go = _replies(negotiation.receive(_option(nbd.OPT_GO, _info("Sales")) + b"first request"))
    assert [(kind, data) for _, kind, data in go] == [(kind, data) for _, kind, data in info]
    assert negotiation.state is State.TRANSMISSION
    assert negotiation.outcome is not None
    assert negotiation.outcome.export.name == "Sales"
    assert negotiation.left_over() == b"first request"


@pytest.mark.parametrize(("flags", "zeroes"), [(FIXED_NO_ZEROES, 0), (FIXED, 124), (0, 124)])
def test_export_name_begins_the_transmission_with_or_without_zeroes(flags: int, zeroes: int) -> None:
    negotiation = _started(flags=flags)
    answer = negotiation.receive(_option(nbd.OPT_EXPORT_NAME, b"Sales"))
    assert answer[:8] == (1 << 30).to_bytes(8, "big")
    assert answer[10:] == bytes(zeroes)
    assert negotiation.state is State.TRANSMISSION


def test_export_name_of_nothing_ends_the_session_in_silence() -> None:
    """The specification leaves no other way: this option cannot be answered with an error."""
    negotiation = _started()
    assert negotiation.receive(_option(nbd.OPT_EXPORT_NAME, b"secret")) == b""
    assert negotiation.state is State.ENDED
    assert negotiation.outcome is None


@pytest.mark.parametrize(
    ("option", "data", "kind"),
    [
        (nbd.OPT_GO, _info("secret"), nbd.REP_ERR_UNKNOWN),
        (nbd.OPT_INFO, _info("secret"), nbd.REP_ERR_UNKNOWN),
        (nbd.OPT_INFO, _info(""), nbd.REP_ERR_UNKNOWN),  # there is no default export
        (nbd.OPT_INFO, b"\0", nbd.REP_ERR_INVALID),
        (nbd.OPT_LIST, b"x", nbd.REP_ERR_INVALID),
        (nbd.OPT_STRUCTURED_REPLY, b"x", nbd.REP_ERR_INVALID),
        (nbd.OPT_SET_META_CONTEXT, _meta("Sales", nbd.BASE_ALLOCATION), nbd.REP_ERR_INVALID),  # not structured yet
        (nbd.OPT_LIST_META_CONTEXT, _meta("Sales"), nbd.REP_ERR_INVALID),
        (nbd.OPT_STARTTLS, b"", nbd.REP_ERR_INVALID),  # TLS is off
        (4, b"", nbd.REP_ERR_UNSUP),
        (11, b"", nbd.REP_ERR_UNSUP),  # extended headers, newer than this server
        (99, b"anything", nbd.REP_ERR_UNSUP),
    ],
)
def test_an_option_that_cannot_be_had_is_answered_and_the_session_goes_on(option: int, data: bytes, kind: int) -> None:
    negotiation = _started()
    [(answered, its_kind, sentence)] = _replies(negotiation.receive(_option(option, data)))
    assert (answered, its_kind) == (option, kind)
    assert sentence
    assert _kinds(negotiation.receive(_option(nbd.OPT_LIST)))[-1] == nbd.REP_ACK


def test_abort_is_acknowledged_and_ends_the_session() -> None:
    negotiation = _started()
    assert _kinds(negotiation.receive(_option(nbd.OPT_ABORT, b"ignored"))) == [nbd.REP_ACK]
    assert negotiation.state is State.ENDED


@pytest.mark.parametrize(
    ("option", "queries", "listed"),
    [
        (nbd.OPT_LIST_META_CONTEXT, (), True),
        (nbd.OPT_LIST_META_CONTEXT, ("base:",), True),
        (nbd.OPT_LIST_META_CONTEXT, ("base:allocation",), True),
        (nbd.OPT_LIST_META_CONTEXT, ("base:other", "qemu:dirty-bitmap:x"), False),
        (nbd.OPT_SET_META_CONTEXT, (), False),
        (nbd.OPT_SET_META_CONTEXT, ("base:",), False),
        (nbd.OPT_SET_META_CONTEXT, ("qemu:allocation-depth", "base:allocation"), True),
    ],
)
def test_metadata_contexts_follow_their_queries(option: int, queries: tuple[str, ...], listed: bool) -> None:
    negotiation = _started()
    negotiation.receive(_option(nbd.OPT_STRUCTURED_REPLY))
    kinds = _kinds(negotiation.receive(_option(option, _meta("Sales", *queries))))
    assert kinds == [nbd.REP_META_CONTEXT] * listed + [nbd.REP_ACK]
    negotiation.receive(_option(nbd.OPT_GO, _info("Sales")))
    assert negotiation.outcome is not None
    selected = listed and option == nbd.OPT_SET_META_CONTEXT
    assert (negotiation.outcome.allocation_id is not None) == selected


@pytest.mark.parametrize(
    "undo",
    [
        _option(nbd.OPT_SET_META_CONTEXT, _meta("Sales")),
        _option(nbd.OPT_SET_META_CONTEXT, _meta("secret", "base:allocation")),
        _option(nbd.OPT_SET_META_CONTEXT, b"garbage"),
        _option(nbd.OPT_SET_META_CONTEXT, _meta("archive", "base:allocation")),
    ],
)
def test_the_last_selection_counts_also_when_it_fails_or_is_of_another_export(undo: bytes) -> None:
    negotiation = _started()
    negotiation.receive(_option(nbd.OPT_STRUCTURED_REPLY))
    negotiation.receive(_option(nbd.OPT_SET_META_CONTEXT, _meta("Sales", "base:allocation")))
    negotiation.receive(undo)
    negotiation.receive(_option(nbd.OPT_GO, _info("Sales")))
    assert negotiation.outcome is not None
    assert negotiation.outcome.allocation_id is None


def test_transmission_flags_say_what_is_served() -> None:
    read_write = transmission_flags(_export("a"), structured_replies=True)
    assert read_write == 0b1101_1110_1101  # all but READ_ONLY, ROTATIONAL and the experimental RESIZE
    assert transmission_flags(_export("a"), structured_replies=False) == read_write & ~nbd.FLAG_SEND_DF
    assert transmission_flags(_export("a", read_only=True), structured_replies=True) == read_write | 2


# -- TLS -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option",
    [
        _option(nbd.OPT_LIST),
        _option(nbd.OPT_GO, _info("Sales")),
        _option(nbd.OPT_INFO, _info("secret")),
        _option(nbd.OPT_STRUCTURED_REPLY),
        _option(77),
    ],
)
def test_where_tls_is_required_nothing_is_told_without_it(option: bytes) -> None:
    negotiation = _started("required")
    assert _kinds(negotiation.receive(option)) == [nbd.REP_ERR_TLS_REQD]
    assert negotiation.state is State.OPTIONS


def test_where_tls_is_required_export_name_and_plain_newstyle_end_the_session() -> None:
    with pytest.raises(ProtocolError, match="without TLS"):
        _started("required").receive(_option(nbd.OPT_EXPORT_NAME, b"Sales"))
    with pytest.raises(ProtocolError, match="cannot use TLS"):
        _started("required", flags=0)


def test_abort_needs_no_tls() -> None:
    assert _kinds(_started("required").receive(_option(nbd.OPT_ABORT))) == [nbd.REP_ACK]


@pytest.mark.parametrize("tls", ["offered", "required"])
def test_starttls_forgets_what_was_said_in_the_clear_and_looks_again(tls: TlsMode) -> None:
    negotiation = _started(tls)
    negotiation.receive(_option(nbd.OPT_STRUCTURED_REPLY))
    negotiation.receive(_option(nbd.OPT_SET_META_CONTEXT, _meta("Sales", "base:allocation")))
    assert _kinds(negotiation.receive(_option(nbd.OPT_STARTTLS))) == [nbd.REP_ACK]
    assert negotiation.state is State.TLS
    negotiation.tls_started(Shelf([_export("Sales"), _export("of the certificate")]))
    assert _kinds(negotiation.receive(_option(nbd.OPT_STARTTLS))) == [nbd.REP_ERR_INVALID]
    assert len(_kinds(negotiation.receive(_option(nbd.OPT_LIST)))) == 3
    negotiation.receive(_option(nbd.OPT_GO, _info("Sales")))
    assert negotiation.outcome is not None
    assert not negotiation.outcome.structured_replies
    assert negotiation.outcome.allocation_id is None


def test_starttls_with_data_is_refused() -> None:
    assert _kinds(_started("offered").receive(_option(nbd.OPT_STARTTLS, b"x"))) == [nbd.REP_ERR_INVALID]


def test_bytes_behind_starttls_end_the_session() -> None:
    """Whoever sits on the wire could otherwise put options into what the client says under TLS."""
    with pytest.raises(ProtocolError, match="in the clear"):
        _started("offered").receive(_option(nbd.OPT_STARTTLS) + _option(nbd.OPT_LIST))


# -- any bytes -----------------------------------------------------------------------------------------------

_chunks = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([0, 1, 2, 3]).map(lambda flags: flags.to_bytes(4, "big")),
    st.tuples(st.integers(0, 12), st.one_of(st.binary(max_size=20), st.just(_info("Sales")), st.just(_meta("Sales"))))
    .map(lambda option: _option(*option)),
)  # fmt: skip


@given(st.lists(_chunks, max_size=12), st.sampled_from(["off", "offered", "required"]))
def test_any_bytes_lead_to_a_state_or_to_protocol_error(chunks: list[bytes], tls: TlsMode) -> None:
    negotiation = Negotiation(SHELF, tls)
    try:
        for chunk in chunks:
            _replies(negotiation.receive(chunk))
    except ProtocolError:
        return
    except struct.error:  # the answer to NBD_OPT_EXPORT_NAME has a form of its own
        assert negotiation.state is State.TRANSMISSION
    if tls == "required":
        assert negotiation.outcome is None
    assert (negotiation.outcome is not None) == (negotiation.state is State.TRANSMISSION)


@given(st.data())
def test_any_split_of_a_dialogue_gives_the_same_answers(data: st.DataObject) -> None:
    dialogue = FIXED_NO_ZEROES.to_bytes(4, "big") + b"".join(
        [
            _option(nbd.OPT_STRUCTURED_REPLY),
            _option(nbd.OPT_LIST),
            _option(nbd.OPT_SET_META_CONTEXT, _meta("Sales", "base:allocation")),
            _option(55, b"unknown"),
            _option(nbd.OPT_GO, _info("Sales", nbd.INFO_BLOCK_SIZE)),
        ]
    )
    whole = Negotiation(SHELF, "off").receive(dialogue)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(dialogue)), max_size=10)))
    negotiation, answer = Negotiation(SHELF, "off"), b""
    for start, end in zip([0, *cuts], [*cuts, len(dialogue)], strict=True):
        answer += negotiation.receive(dialogue[start:end])
    assert answer == whole
    assert negotiation.state is State.TRANSMISSION


def test_who_has_too_many_connections_is_told_so_and_may_ask_again() -> None:
    full = Shelf([_export("Sales")], "there are 256 connections over NBD")
    negotiation = _started(shelf=full)
    ((_, kind, sentence),) = _replies(negotiation.receive(_option(nbd.OPT_GO, _info("Sales"))))
    assert (kind, sentence) == (nbd.REP_ERR_POLICY, b"there are 256 connections over NBD")
    assert negotiation.state is State.OPTIONS
    assert _kinds(negotiation.receive(_option(nbd.OPT_INFO, _info("Sales"))))[-1] == nbd.REP_ACK
    full.full = ""
    assert _kinds(negotiation.receive(_option(nbd.OPT_GO, _info("Sales"))))[-1] == nbd.REP_ACK
    assert negotiation.outcome is not None


def test_who_has_too_many_connections_and_cannot_be_told_is_closed() -> None:
    negotiation = _started(shelf=Shelf([_export("Sales")], "full"))
    assert negotiation.receive(_option(nbd.OPT_EXPORT_NAME, b"Sales")) == b""
    assert negotiation.state is State.ENDED
    assert negotiation.outcome is None
