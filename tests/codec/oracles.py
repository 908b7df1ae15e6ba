"""What the kernels do, said again as plainly as possible; slow. The formats are those of the codecs' documentation."""

from __future__ import annotations

import math

import numpy as np

from thinwire.codec.base import Array


def largest(values: Array, k: int) -> list[int]:
    """Positions of the k largest magnitudes, the earlier of two equal ones; NaN is the largest of all."""
    magnitudes = values.view(np.uint32) & 0x7FFFFFFF
    order = sorted(range(values.size), key=lambda i: (-int(magnitudes[i]), i))
    return sorted(order[:k])


def golomb(gaps: list[int], m: int) -> list[int]:
    """The bits of each gap."""
    bits = []
    num_bits = math.ceil(math.log2(m))
    num_short = 2**num_bits - m
    for gap in gaps:
        bits += [1] * (gap // m) + [0]
        rest = gap % m
        if m == 1:
            continue
        prefix, is_long = (rest, False) if rest < num_short else ((rest + num_short) >> 1, True)
        bits += [prefix >> place & 1 for place in range(num_bits - 1)]
        bits += [(rest + num_short) & 1] if is_long else []
    return bits


def log2_choices(size: int, kept: int) -> float:
    """log2 of the number of ways to choose."""
    return math.log2(math.comb(size, kept))


def rans_encode(symbols: list[int], frequencies: list[int]) -> tuple[list[int], list[int]]:
    """States and words of eight coders with 12 bits of precision."""
    starts = [sum(frequencies[:symbol]) for symbol in range(256)]
    states = [1 << 16] * 8
    words: list[int] = []
    for i in reversed(range(len(symbols))):
        x, frequency = states[i % 8], frequencies[symbols[i]]
        if x >= frequency << 20:
            words.append(x & 0xFFFF)
            x >>= 16
        states[i % 8] = (x // frequency << 12) + starts[symbols[i]] + x % frequency
    return states, words[::-1]


def rans_decode(states: list[int], words: list[int], frequencies: list[int], count: int) -> list[int]:
    """The inverse."""
    slots = [symbol for symbol in range(256) for _ in range(frequencies[symbol])]
    starts = [sum(frequencies[:symbol]) for symbol in range(256)]
    states, at, symbols = list(states), 0, []
    for i in range(count):
        x = states[i % 8]
        symbol = slots[x & 4095]
        x = frequencies[symbol] * (x >> 12) + (x & 4095) - starts[symbol]
        if x < 1 << 16:
            x = x << 16 | words[at]
            at += 1
        states[i % 8] = x
        symbols.append(symbol)
    assert at == len(words)
    assert states == [1 << 16] * 8
    return symbols


def entropy_bits(symbols: Array) -> float:
    """The empirical entropy of all the symbols together."""
    counts = np.bincount(symbols, minlength=256)
    counts = counts[counts > 0]
    return float(-(counts * np.log2(counts / symbols.size)).sum())
