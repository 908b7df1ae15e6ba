"""The loops of the entropy coder; ``thinwire.codec.rans`` says what the bytes are.

Eight coders take turns at the symbols and share one stream of 16-bit words, so that a processor has eight chains of
arithmetic to work on at a time (Giesen 2014). The state x of a coder is in [2^16, 2^32) between symbols. A
symbol whose frequency is f, out of 4096, and whose slots start at c, takes x to (x // f) * 4096 + c + x % f, after
the lower half of x was written out where the result would not fit; decoding is the inverse. Symbols are encoded from
the last to the first, so that they are decoded in order.

Not here: how frequencies are written, and what is done with bytes that do not become shorter.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from thinwire.codec.kernels import kernel

NUM_CODERS = 8
PRECISION_BITS = 12
TOTAL = 1 << PRECISION_BITS
LOWEST = 1 << 16


@kernel
def count_symbols(symbols: Any, counts: Any) -> None:
    """How often each byte occurs. Four tables, because equal neighbours would wait for each other."""
    tables = np.zeros((4, 256), np.int64)
    whole = symbols.size - symbols.size % 4
    for i in range(0, whole, 4):
        tables[0, symbols[i]] += 1
        tables[1, symbols[i + 1]] += 1
        tables[2, symbols[i + 2]] += 1
        tables[3, symbols[i + 3]] += 1
    for i in range(whole, symbols.size):
        tables[0, symbols[i]] += 1
    for symbol in range(256):
        counts[symbol] = tables[0, symbol] + tables[1, symbol] + tables[2, symbol] + tables[3, symbol]


@kernel
def scale_counts(counts: Any, frequencies: Any) -> None:
    """Frequencies that sum up to ``TOTAL``, at least 1 for each symbol that occurs, for few bits in all."""
    size = np.sum(counts)
    total = 0
    for symbol in range(256):
        share = counts[symbol] * TOTAL // size
        frequencies[symbol] = share if share or not counts[symbol] else 1
        total += frequencies[symbol]
    while total != TOTAL:
        step = 1 if total < TOTAL else -1
        best = -1
        least = np.inf
        for symbol in range(256):
            frequency = frequencies[symbol]
            if counts[symbol] and frequency + step > 0:
                # What the step costs in bits, but for a constant factor.
                cost = -counts[symbol] * np.log(1 + step / frequency)
                if cost < least:
                    best, least = symbol, cost
        frequencies[best] += step
        total += step


@kernel
def fill_slots(frequencies: Any, starts: Any, slots: Any) -> None:
    """For each of the ``TOTAL`` slots its symbol, its frequency less 1 and its place in them: 8, 12 and 12 bits."""
    start = 0
    for symbol in range(256):
        starts[symbol] = start
        for place in range(frequencies[symbol]):
            slots[start + place] = symbol | (frequencies[symbol] - 1) << 8 | place << 20
        start += frequencies[symbol]


@kernel
def _absorbed(x: Any, entry: Any) -> Any:
    """The state after the symbol of ``entry``, once it has room."""
    frequency = np.uint32(entry >> np.uint32(16))
    quotient = np.uint32(x // frequency)
    place = np.uint32(np.uint32(entry & np.uint32(0xFFFF)) + np.uint32(x - np.uint32(quotient * frequency)))
    return np.uint32(np.uint32(quotient << np.uint32(PRECISION_BITS)) + place)


@kernel
def encode_words(symbols: Any, entries: Any, states: Any, words: Any) -> int:
    """Fill ``words`` from the back; returns the index of the first, or -1 if there is no room for all.

    Args:
        entries: uint32 for each of 256 symbols: the frequency, and in the lower 16 bits where its slots start.
        words: ``NUM_CODERS`` more than there may be: what is below the first is scratch memory.
    """
    for coder in range(NUM_CODERS):
        states[coder] = LOWEST
    first: Any = words.size
    rest = symbols.size % NUM_CODERS
    for start in range(symbols.size - rest, -1, -NUM_CODERS):
        if first <= NUM_CODERS:
            return -1
        for turn in range(NUM_CODERS):
            coder = NUM_CODERS - 1 - turn
            if start + coder >= symbols.size:
                continue
            entry = entries[symbols[start + coder]]
            x = states[coder]
            # No branch: which way it went could not be foretold.
            is_large = np.uint32(x >> np.uint32(32 - PRECISION_BITS)) >= np.uint32(entry >> np.uint32(16))
            words[first - 1] = np.uint16(x & np.uint32(0xFFFF))
            first -= np.int64(is_large)
            x = np.uint32(x >> np.uint32(16)) if is_large else x
            states[coder] = _absorbed(x, entry)
    return int(first) if first >= NUM_CODERS else -1


@kernel
def _advanced(x: Any, slot: Any) -> Any:
    """The state after the symbol of ``slot``, before it is filled up."""
    frequency = np.uint32(np.uint32(np.uint32(slot >> np.uint32(8)) & np.uint32(TOTAL - 1)) + np.uint32(1))
    quotient = np.uint32(x >> np.uint32(PRECISION_BITS))
    return np.uint32(np.uint32(frequency * quotient) + np.uint32(slot >> np.uint32(20)))


@kernel
def decode_words(words: Any, slots: Any, states: Any, out: Any) -> bool:
    """The inverse of ``encode_words``; says whether words and states are such as it writes for these slots."""
    at: Any = 0
    base = 0
    while base + NUM_CODERS <= out.size and at + NUM_CODERS <= words.size:
        for coder in range(NUM_CODERS):
            slot = slots[states[coder] & np.uint32(TOTAL - 1)]
            out[base + coder] = np.uint8(slot & np.uint32(0xFF))
            x = _advanced(states[coder], slot)
            filled = np.uint32(np.uint32(x << np.uint32(16)) | np.uint32(words[at]))
            is_low = x < np.uint32(LOWEST)
            at += np.int64(is_low)
            states[coder] = filled if is_low else x
        base += NUM_CODERS
    for i in range(base, out.size):  # the same, with care: the words may end
        slot = slots[states[i % NUM_CODERS] & np.uint32(TOTAL - 1)]
        out[i] = np.uint8(slot & np.uint32(0xFF))
        x = _advanced(states[i % NUM_CODERS], slot)
        if x < np.uint32(LOWEST):
            if at == words.size:
                return False
            x = np.uint32(np.uint32(x << np.uint32(16)) | np.uint32(words[at]))
            at += 1
        states[i % NUM_CODERS] = x
    for coder in range(NUM_CODERS):
        if states[coder] != np.uint32(LOWEST):
            return False
    return bool(at == words.size)
