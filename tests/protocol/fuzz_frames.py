"""Coverage-guided fuzzing of all that reads a connection's bytes: both sides of the handshake, headers, frames.

    pip install atheris
    python tests/protocol/fuzz_frames.py tests/protocol/corpus -max_total_time=300

The contract in one sentence: whatever arrives is accepted or raises ``ProtocolError``, and what is accepted is whole.
The corpus holds the inputs that reach all the code found so far; ``test_corpus.py`` replays it without atheris.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from types import FunctionType

from thinwire.errors import AuthenticationError, ProtocolError
from thinwire.protocol import frame, handshake, reader

SECRET = b"known to the fuzzer as well"
ENDPOINTS = handshake.Introduction("0a" * 16, "0b" * 16, 0, 1)
NONCE = bytes(handshake.NONCE_BYTES)


def one_input(data: bytes) -> None:
    """The first byte chooses what reads the rest."""
    if data:
        TARGETS[data[0] % len(TARGETS)](data[1:])


def stranger_dials(data: bytes) -> None:
    acceptor = handshake.Acceptor(SECRET, NONCE)
    try:
        acceptor.hear(data[: handshake.HELLO_BYTES])
        acceptor.verify(data[handshake.HELLO_BYTES :])
    except ProtocolError:
        return
    raise AssertionError("a guess was accepted")


def insider_dials(data: bytes) -> None:
    """Somebody who knows the secret says nonsense: HELLO is arbitrary, PROOF fits it."""
    acceptor, dialer = handshake.Acceptor(SECRET, NONCE), handshake.Dialer(SECRET, ENDPOINTS, NONCE)
    dialer.hello = data
    try:
        acceptor.hear(data)
        introduction = acceptor.verify(dialer.prove(acceptor.challenge))
    except AuthenticationError as error:
        raise AssertionError("a proof was not accepted") from error
    except ProtocolError:
        return
    assert introduction.lane < introduction.lanes <= handshake.LANES_MAX
    assert len(introduction.dialer) == len(introduction.acceptor) == 32


def stranger_answers(data: bytes) -> None:
    dialer = handshake.Dialer(SECRET, ENDPOINTS, NONCE)
    try:
        dialer.prove(data[: handshake.CHALLENGE_BYTES])
        dialer.conclude(data[handshake.CHALLENGE_BYTES :])
    except ProtocolError:
        return
    raise AssertionError("a guess was accepted")


def header_arrives(data: bytes) -> None:
    if len(data) < frame.HEADER_BYTES:
        return
    counter = int.from_bytes(data[4:8], "little")
    try:
        header = frame.Header.parse(data, counter)
    except ProtocolError:
        return
    assert header.pack(counter) == data[: frame.HEADER_BYTES]
    assert header.length <= frame.MAX_PAYLOAD_BYTES


def stream_arrives(data: bytes) -> None:
    """Frames as they come, in arrivals whose sizes the input chooses too; references are agreed upon."""
    sizes, stream = data[:4], data[4:]

    def on_header(header: frame.Header) -> Sequence[memoryview]:
        whole = memoryview(bytearray(header.length))
        cut = header.length // 3
        return [whole[:cut], whole[cut:]]

    def on_frame(header: frame.Header, payload: Sequence[memoryview]) -> None:
        assert sum(len(view) for view in payload) == header.length
        assert not header.flags & reader.BY_REFERENCE

    def pull(pieces: Sequence[reader.Piece], views: Sequence[memoryview]) -> None:
        assert sum(piece.length for piece in pieces) == sum(len(view) for view in views)
        assert len(pieces) <= reader.PIECES_MAX

    frames = reader.FrameReader(on_header, on_frame, pull)
    position = turn = 0
    while position < len(stream):
        target = frames.target()
        size = 1 + (sizes[turn % 4] << 4)
        arrived = stream[position : position + min(len(target), size)]
        target[: len(arrived)] = arrived
        try:
            frames.advance(len(arrived))
        except ProtocolError:
            return
        position += len(arrived)
        turn += 1


TARGETS = (stranger_dials, insider_dials, stranger_answers, header_arrives, stream_arrives)


def seeds() -> list[bytes]:
    """An input for each target that gets far."""
    acceptor, dialer = handshake.Acceptor(SECRET, NONCE), handshake.Dialer(SECRET, ENDPOINTS, NONCE)
    data = frame.Header(frame.Kind.DATA, length=300)
    referred = frame.Header(frame.Kind.DATA, length=9, flags=reader.BY_REFERENCE)
    stream = [
        data.pack(0) + bytes(300),
        referred.pack(1) + reader.pack_pieces([reader.Piece(4096, 4), reader.Piece(8192, 5)]),
        frame.Header(frame.Kind.DATA, length=9000).pack(2) + bytes(9000),
        frame.Header(frame.Kind.GOODBYE).pack(3),
    ]
    return [
        b"\0" + dialer.hello + dialer.prove(acceptor.challenge)[::-1],
        b"\1" + dialer.hello,
        b"\2" + acceptor.challenge + bytes(handshake.VERDICT_BYTES),
        b"\3" + data.pack(7),
        b"\4\1\2\3\xff" + b"".join(stream),
    ]


def main() -> None:
    import atheris

    for module in (frame, handshake, reader):
        for owner in (module, *(value for _, value in inspect.getmembers(module, inspect.isclass))):
            for function in list(vars(owner).values()):
                function = getattr(function, "__func__", function)
                if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                    atheris.instrument_func(function)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
