"""Bytes, seconds and rates: parse what people type, print what people read.

Inside thinwire a size is an ``int`` of bytes, a time a ``float`` of seconds, a rate a ``float`` of bytes per second;
names carry the unit. Only this module scales them. Sizes print in binary units (KiB, MiB), rates in decimal ones
(MB/s, as network vendors and nccl-tests count).

Not here: dates, and any other quantity.
"""

from __future__ import annotations

import re

from thinwire.errors import UsageError

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB")
_BYTES = {
    "": 1,
    "b": 1,
    "k": 1 << 10,
    "kib": 1 << 10,
    "kb": 1000,
    "m": 1 << 20,
    "mib": 1 << 20,
    "mb": 1000**2,
    "g": 1 << 30,
    "gib": 1 << 30,
    "gb": 1000**3,
    "t": 1 << 40,
    "tib": 1 << 40,
    "tb": 1000**4,
}
_NUMBER_AND_UNIT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def parse_bytes(text: str) -> int:
    """The number of bytes that ``text`` names.

    A bare ``K``, ``M``, ``G`` or ``T`` is binary, as in nccl-tests; ``kB``, ``MB``, ... are decimal. Any case will do.

    Raises:
        UsageError: not a size, or not a whole number of bytes.

    >>> parse_bytes("256MiB"), parse_bytes("1k"), parse_bytes("1.5 KiB"), parse_bytes("3 MB"), parse_bytes("17")
    (268435456, 1024, 1536, 3000000, 17)
    """
    match = _NUMBER_AND_UNIT.fullmatch(text)
    unit = _BYTES.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise UsageError(f"{text!r} is not a size; write a number and a unit, as in 512, 64KiB or 1.5GiB")
    size = float(match[1]) * unit
    if not size.is_integer():
        raise UsageError(f"{text!r} is not a whole number of bytes")
    return int(size)


def format_bytes(size_bytes: float) -> str:
    """A size for people: three significant digits, or all of them below 1024.

    >>> format_bytes(1024), format_bytes(1536), format_bytes(268435456), format_bytes(1000000), format_bytes(7)
    ('1 KiB', '1.5 KiB', '256 MiB', '977 KiB', '7 B')
    """
    value = float(size_bytes)
    for unit in _BINARY[:-1]:
        if abs(value) < 1023.5:
            return f"{three_digits(value)} {unit}"
        value /= 1024
    return f"{three_digits(value)} {_BINARY[-1]}"


def format_seconds(duration_s: float) -> str:
    """A duration for people.

    >>> format_seconds(0), format_seconds(3.2e-7), format_seconds(0.00025), format_seconds(0.0125), format_seconds(83)
    ('0 s', '320 ns', '250 µs', '12.5 ms', '83 s')
    """
    for scale, unit in ((1e-9, "ns"), (1e-6, "µs"), (1e-3, "ms")):
        if 0 < abs(duration_s) < 999.5 * scale:
            return f"{three_digits(duration_s / scale)} {unit}"
    return f"{three_digits(duration_s)} s"


def format_rate(bytes_per_s: float) -> str:
    """A rate for people, in decimal bytes per second.

    >>> format_rate(1.3e9), format_rate(12_500_000), format_rate(0)
    ('1.3 GB/s', '12.5 MB/s', '0 B/s')
    """
    value = float(bytes_per_s)
    for unit in ("B", "kB", "MB"):
        if abs(value) < 999.5:
            return f"{three_digits(value)} {unit}/s"
        value /= 1000
    return f"{three_digits(value)} GB/s"


def format_bit_rate(bytes_per_s: float) -> str:
    """A bandwidth as network vendors write it, in decimal bits per second.

    >>> format_bit_rate(2_500_000), format_bit_rate(125e6), format_bit_rate(12_500)
    ('20 Mbit/s', '1 Gbit/s', '100 kbit/s')
    """
    value = bytes_per_s * 8 / 1000
    for unit in ("kbit", "Mbit"):
        if abs(value) < 999.5:
            return f"{three_digits(value)} {unit}/s"
        value /= 1000
    return f"{three_digits(value)} Gbit/s"


def three_digits(value: float) -> str:
    """A number for people, who compare and do not compute.

    >>> three_digits(1234.5), three_digits(0.09876)
    ('1234', '0.0988')
    """
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
