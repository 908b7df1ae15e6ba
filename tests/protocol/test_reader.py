"""The frame reader, fed from memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinwire.errors import ProtocolError
from thinwire.protocol.frame import HEADER_BYTES, MAX_PAYLOAD_BYTES, Header, Kind
from thinwire.protocol.reader import (
    AHEAD_BYTES,
    BY_REFERENCE,
    DIRECT_BYTES,
    PIECES_MAX,
    FrameReader,
    Piece,
    pack_pieces,
)

Frame = tuple[Header, bytes]


class Owner:
    """Hands out views of a payload cut into ``pieces``, and keeps the frames that came."""

    def __init__(self, pieces: int = 1) -> None:
        self.pieces = pieces
        self.frames: list[Frame] = []

    def on_header(self, header: Header) -> Sequence[memoryview]:
        whole = memoryview(bytearray(header.length))
        bounds = [header.length * piece // self.pieces for piece in range(self.pieces + 1)]
        return [whole[start:end] for start, end in itertools.pairwise(bounds)]

    def on_frame(self, header: Header, payload: Sequence[memoryview]) -> None:
        self.frames.append((header, b"".join(payload)))


def feed(reader: FrameReader, stream: bytes, sizes: Iterable[int] = ()) -> None:
    """Write ``stream`` to where the reader wants it, in arrivals of at most the ``sizes``, then as large as may be."""
    position = 0
    arrivals = iter(sizes)
    while position < len(stream):
        target = reader.target()
        assert len(target) > 0
        arrived = stream[position : position + min(len(target), next(arrivals, len(target)))]
        target[: len(arrived)] = arrived
        reader.advance(len(arrived))
        position += len(arrived)


def wire(frames: Sequence[Frame]) -> bytes:
    return b"".join(header.pack(counter) + payload for counter, (header, payload) in enumerate(frames))


def frame(length: int, number: int = 0) -> Frame:
    payload = bytes((number + position) % 251 for position in range(length))
    return Header(Kind.DATA, group=1 << 63, operation=number, length=length, signature=9, flags=3), payload


LENGTHS = [
    0,
    1,
    HEADER_BYTES,
    DIRECT_BYTES - 1,
    DIRECT_BYTES,
    DIRECT_BYTES + 1,
    AHEAD_BYTES,
    3 * AHEAD_BYTES + 5,
]


@pytest.mark.parametrize("pieces", [1, 2, 7])
@pytest.mark.parametrize("length", LENGTHS)
def test_every_frame_arrives_whole(length: int, pieces: int) -> None:
    frames = [frame(length, 0), frame(0, 1), frame(length, 2), frame(5, 3)]
    owner = Owner(pieces)
    reader = FrameReader(owner.on_header, owner.on_frame)
    feed(reader, wire(frames))
    assert owner.frames == frames
    assert reader.between_frames


def test_every_frame_arrives_whole_byte_by_byte() -> None:
    frames = [frame(length, number) for number, length in enumerate(LENGTHS[:6])]
    owner = Owner(3)
    feed(FrameReader(owner.on_header, owner.on_frame), wire(frames), sizes=iter(lambda: 1, None))
    assert owner.frames == frames


@given(
    st.lists(st.integers(0, 3 * DIRECT_BYTES), max_size=6),
    st.lists(st.integers(1, 2 * AHEAD_BYTES)),
    st.integers(1, 9),
)
def test_every_frame_arrives_whole_however_it_arrives(
    lengths: list[int], sizes: list[int], pieces: int
) -> None:
    frames = [frame(length, number) for number, length in enumerate(lengths)]
    owner = Owner(pieces)
    reader = FrameReader(owner.on_header, owner.on_frame)
    feed(reader, wire(frames), sizes)
    assert owner.frames == frames
    assert reader.between_frames


def test_a_large_payload_goes_straight_to_its_owner() -> None:
    header, payload = frame(10 * AHEAD_BYTES)
    home = memoryview(bytearray(header.length))
    reader = FrameReader(lambda _: [home], lambda *_: None)
    feed(reader, header.pack(0) + payload[:100])
    assert reader.direct()
    reader.target()[:4] = b"here"
    assert home[100:104] == b"here"


@pytest.mark.parametrize("missing", [1, HEADER_BYTES, HEADER_BYTES + 99])
def test_an_end_inside_a_frame_is_seen(missing: int) -> None:
    owner = Owner()
    reader = FrameReader(owner.on_header, owner.on_frame)
    feed(reader, wire([frame(100)])[:-missing])
    assert reader.between_frames is (missing == HEADER_BYTES + 100)
    assert not owner.frames


def test_a_replayed_frame_is_refused() -> None:
    owner = Owner()
    reader = FrameReader(owner.on_header, owner.on_frame)
    once = wire([frame(10)])
    with pytest.raises(ProtocolError, match="replayed or lost"):
        feed(reader, once + once)
    assert owner.frames == [frame(10)]


def test_an_oversized_frame_is_refused_before_its_owner_is_asked() -> None:
    def asked(header: Header) -> Sequence[memoryview]:
        raise AssertionError("asked")

    header = Header(Kind.DATA, length=MAX_PAYLOAD_BYTES + 1)
    with pytest.raises(ProtocolError, match="exceeds the limit"):
        feed(FrameReader(asked, lambda *_: None), header.pack(0))


def by_reference(pieces: Sequence[Piece], length: int, counter: int = 0) -> bytes:
    return Header(Kind.DATA, length=length, flags=1 | BY_REFERENCE).pack(counter) + pack_pieces(pieces)


def test_a_payload_by_reference_is_pulled() -> None:
    owner = Owner(2)
    pieces = [Piece(4096, 30), Piece(1 << 47, 12)]

    def pull(asked: Sequence[Piece], views: Sequence[memoryview]) -> None:
        assert list(asked) == pieces
        for view in views:
            view[:] = b"p" * len(view)

    reader = FrameReader(owner.on_header, owner.on_frame, pull)
    feed(reader, wire([frame(3)]) + by_reference(pieces, 42, counter=1) + frame(0)[0].pack(2), sizes=[50, 60])
    assert owner.frames[1] == (Header(Kind.DATA, length=42, flags=1), b"p" * 42)
    assert [header.length for header, _ in owner.frames] == [3, 42, 0]


@pytest.mark.parametrize(
    ("lengths", "length"), [((), 0), ((0,), 0), ((5,), 6), ((3, 4), 6), ((1 << 63, 1 << 63), 4)]
)
def test_references_that_do_not_add_up_are_refused(lengths: Sequence[int], length: int) -> None:
    pieces = [Piece(4096, each) for each in lengths]
    owner = Owner()
    reader = FrameReader(owner.on_header, owner.on_frame, lambda *_: None)
    with pytest.raises(ProtocolError, match="references to"):
        feed(reader, by_reference(pieces, length))


def test_references_are_refused_where_none_were_agreed_upon() -> None:
    owner = Owner()
    with pytest.raises(ProtocolError, match="none was agreed upon"):
        feed(FrameReader(owner.on_header, owner.on_frame), by_reference([Piece(4096, 5)], 5))


def test_more_pieces_than_a_frame_carries_are_our_own_mistake() -> None:
    assert len(pack_pieces([Piece(1, 1)] * PIECES_MAX)) == len(pack_pieces([]))
    with pytest.raises(AssertionError):
        pack_pieces([Piece(1, 1)] * (PIECES_MAX + 1))


def test_views_that_do_not_fit_are_our_own_mistake() -> None:
    reader = FrameReader(lambda header: [memoryview(bytearray(header.length - 1))], lambda *_: None)
    with pytest.raises(AssertionError, match="do not fit"):
        feed(reader, wire([frame(10)]))


@given(st.binary(max_size=4 * HEADER_BYTES), st.lists(st.integers(1, 64)))
def test_garbage_is_accepted_or_a_protocol_error(garbage: bytes, sizes: list[int]) -> None:
    owner = Owner()
    reader = FrameReader(owner.on_header, owner.on_frame, lambda *_: None)
    try:
        feed(reader, garbage, sizes)
    except ProtocolError:
        return
    assert len(garbage) < HEADER_BYTES or owner.frames or not reader.between_frames


@given(st.data())
def test_damaged_frames_are_accepted_or_a_protocol_error(data: st.DataObject) -> None:
    """A stream of good frames in which some bytes are changed, dropped or doubled."""
    frames = [frame(length, number) for number, length in enumerate((7, 0, DIRECT_BYTES + 9, 80))]
    stream = bytearray(wire(frames))
    position = data.draw(st.integers(0, len(stream) - 1))
    match data.draw(st.sampled_from(["change", "drop", "double"])):
        case "change":
            stream[position] ^= data.draw(st.integers(1, 255))
        case "drop":
            del stream[position]
        case _:
            stream.insert(position, stream[position])
    owner = Owner()
    reader = FrameReader(owner.on_header, owner.on_frame, lambda *_: None)
    try:
        feed(reader, bytes(stream))
    except ProtocolError:
        return
    assert owner.frames != frames or not reader.between_frames
