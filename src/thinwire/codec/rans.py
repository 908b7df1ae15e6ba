"""Entropy coding behind any codec: interleaved range asymmetric numeral systems (Duda 2013; Giesen 2014).

The bytes of a payload are not equally likely: levels near zero are common, and so are the same scales. This stage
counts them and writes each in about as many bits as its frequency is worth, whatever the codec before it. Low-bit
quantisation of gradients wins a quarter or so; bytes that are all equally likely stay as they are, with one byte more.

Payload: a byte 0 and the inner payload, or

- a byte 1, and the number of inner bytes (32 bits);
- the frequencies of the bytes 0 to 255 out of 4096: below 128 in one byte, else in two, the first with its highest bit
  set and 7 bits less significant; a frequency of 0 is followed by how many more zeros follow it;
- the states of the eight coders (32 bits each) and the words (16 bits each), lowest byte first.

Not here: the loops (``kernels.rans``), and models that look at more than one byte.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

import numpy as np

from thinwire.codec.base import Array, Codec, Floats, Payload, Shape, State
from thinwire.codec.kernels.rans import (
    LOWEST,
    NUM_CODERS,
    TOTAL,
    count_symbols,
    decode_words,
    encode_words,
    fill_slots,
    scale_counts,
)
from thinwire.errors import CodecError

_STORED, _CODED = 0, 1
_STATES_BYTES = 4 * NUM_CODERS
_MOST_SYMBOLS = 2**32 - 1


@dataclass(frozen=True)
class Rans(Codec):
    """Write the payload of ``inner`` in as few bytes as the frequencies of its bytes allow.

    Values, error and bias are those of ``inner``; the payload is at most one byte longer.

    Args:
        inner: what turns values into bytes.

    >>> from thinwire.codec.plain import Plain
    >>> len(Rans(Plain()).encode(np.ones(1000, np.float32)).payload)
    793
    """

    inner: Codec

    @property
    def is_lossless(self) -> bool:
        """As the codec is."""
        return self.inner.is_lossless

    @property
    def is_unbiased(self) -> bool:
        """As the codec is."""
        return self.inner.is_unbiased

    def payload_bound(self, shape: Shape) -> int:
        """One byte more than the codec's."""
        return 1 + self.inner.payload_bound(shape)

    def payload_bytes(self, shape: Shape) -> int | None:
        """Depends on the values, unless there is nothing to write."""
        return 1 if self.inner.payload_bound(shape) == 0 else None

    def error_bound(self, shape: Shape) -> float:
        """The codec's."""
        return self.inner.error_bound(shape)

    def initial_state(self, shape: Shape) -> State:
        """The codec's."""
        return self.inner.initial_state(shape)

    def encode_into(
        self, values: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        """Encode, then compress the bytes; see ``Codec.encode_into``."""
        inner = np.empty(self.inner.payload_bound(values.shape), np.uint8)
        num_bytes = self.inner.encode_into(values, state, seed, inner, next_state)
        return compress(inner[:num_bytes], payload)

    def encode_with_residual(
        self, values: Floats, residual: Floats, state: State, seed: int, payload: Payload, next_state: State
    ) -> int:
        """The codec's own, then compress the bytes."""
        inner = np.empty(self.inner.payload_bound(values.shape), np.uint8)
        num_bytes = self.inner.encode_with_residual(values, residual, state, seed, inner, next_state)
        return compress(inner[:num_bytes], payload)

    def decode_into(self, payload: Payload, out: Floats) -> None:
        """Decompress, and decode; see ``Codec.decode_into``."""
        self.inner.decode_into(decompress(payload, self.inner.payload_bound(out.shape)), out)

    def add_decoded(self, payload: Payload, out: Floats) -> None:
        """Decompress, and let the codec add."""
        self.inner.add_decoded(decompress(payload, self.inner.payload_bound(out.shape)), out)


def compress(symbols: Payload, out: Payload) -> int:
    """Write ``symbols`` to the front of ``out``, which has room for one byte more; returns how many bytes it took.

    >>> out = np.empty(1001, np.uint8)
    >>> compress(np.repeat(np.arange(4, dtype=np.uint8), 250), out)
    287
    """
    head = _head(symbols) if 0 < symbols.size <= _MOST_SYMBOLS else None
    if head is not None:
        table, entries = head
        begin = table.size + _STATES_BYTES
        most_words = (symbols.size - begin) // 2 - NUM_CODERS
        if most_words > 0:
            # Written to the end of ``out`` and then moved: memory of their own would have to be mapped page by page,
            # which took a third as long as the coding itself.
            end = begin + out[begin:].ctypes.data % 2 + 2 * (most_words + NUM_CODERS)
            words = out[end - 2 * (most_words + NUM_CODERS) : end].view(np.uint16)
            states = np.empty(NUM_CODERS, np.uint32)
            first = encode_words(symbols, entries, states, words)
            if first >= 0:
                num_bytes = 2 * (words.size - first)
                if sys.byteorder == "big":
                    words.byteswap(inplace=True)
                out[: table.size] = table
                out[table.size : begin] = states.astype("<u4").view(np.uint8)
                ctypes.memmove(out[begin:].ctypes.data, words[first:].ctypes.data, num_bytes)
                return begin + num_bytes
    out[0] = _STORED
    out[1 : 1 + symbols.size] = symbols
    return 1 + symbols.size


def decompress(payload: Payload, most_bytes: int) -> Payload:
    """The symbols that ``compress`` wrote; a view of ``payload`` where they were stored as they are.

    Args:
        most_bytes: how many symbols there may be.

    Raises:
        CodecError: if ``compress`` does not write such bytes for so few symbols. At most ``most_bytes`` are allocated.
    """
    if payload.size and payload[0] == _STORED:
        return payload[1:]
    if payload.size < 5 or payload[0] != _CODED:
        raise _broken("a first byte of 0 or 1", f"{payload[:1].tolist()} in {payload.size} bytes")
    num_symbols = int.from_bytes(payload[1:5].tobytes(), "little")
    if not 0 < num_symbols <= most_bytes:
        raise _broken(f"1 to {most_bytes} symbols", str(num_symbols))
    frequencies, at = _read_table(payload)
    if at + _STATES_BYTES > payload.size or (payload.size - at) % 2:
        raise _broken(f"{_STATES_BYTES} bytes of states and words of two", f"{payload.size - at} bytes")
    starts, slots = np.empty(256, np.uint32), np.empty(TOTAL, np.uint32)
    fill_slots(frequencies, starts, slots)
    states = payload[at : at + _STATES_BYTES].copy().view("<u4").astype(np.uint32)
    words = payload[at + _STATES_BYTES :].copy().view("<u2").astype(np.uint16, copy=False)
    symbols = np.empty(num_symbols, np.uint8)
    if (states < LOWEST).any() or not decode_words(words, slots, states, symbols):
        raise _broken(f"the words of {num_symbols} symbols", "others, or more or fewer of them")
    return symbols


def _head(symbols: Payload) -> tuple[Payload, Array]:
    """All that comes before the states, and the entries for ``encode_words``."""
    counts, frequencies = np.empty(256, np.int64), np.empty(256, np.uint32)
    count_symbols(symbols, counts)
    scale_counts(counts, frequencies)
    head = bytearray([_CODED, *symbols.size.to_bytes(4, "little")])
    listed = frequencies.tolist()
    symbol = 0
    while symbol < 256:
        frequency = listed[symbol]
        symbol += 1
        head += bytes([frequency]) if frequency < 128 else bytes([128 | frequency & 127, frequency >> 7])
        if frequency == 0:
            zeros = 0
            while symbol < 256 and listed[symbol] == 0:
                symbol += 1
                zeros += 1
            head.append(zeros)
    starts = np.concatenate([[0], np.cumsum(frequencies)[:-1]]).astype(np.uint32)
    return np.frombuffer(bytes(head), np.uint8), frequencies << np.uint32(16) | starts


def _read_table(payload: Payload) -> tuple[Array, int]:
    """The frequencies, and where the states begin."""
    data = payload[5 : 5 + 2 * 256].tobytes()
    listed: list[int] = []
    at = 0
    while len(listed) < 256:
        if at + 2 > len(data):
            raise _broken("256 frequencies", f"{len(listed)}")
        byte, following = data[at], data[at + 1]
        at += 1
        if byte >= 128 or byte == 0:
            at += 1
        listed += (
            [0] * (1 + following) if byte == 0 else [byte & 127 | following << 7 if byte >= 128 else byte]
        )
    if len(listed) != 256 or sum(listed) != TOTAL:
        raise _broken(f"256 frequencies that sum up to {TOTAL}", f"{len(listed)} with sum {sum(listed)}")
    return np.array(listed, np.int64), 5 + at


def _broken(expected: str, found: str) -> CodecError:
    return CodecError(
        f"rans: expected {expected}, found {found}: is the other side's codec and shape the same?"
    )
