"""How near quantisation comes to the least error there is for normal values.

    python benchmarks/codec_quality.py > benchmarks/results/codec_quality.json

NMSE is |decoded - x|^2 / |x|^2, over 2**20 normal values. The optimum of blockwise quantisation is that of the
Lloyd-Max quantiser at a known width; that of EDEN's unbiased scale is what its authors prove for large tensors. Fails
if a bound does not hold. Not here: speed (``codec_speed``), sparse and low-rank codecs (``codec_limits``).
"""

from __future__ import annotations

import sys

import msgspec
import numpy as np

from thinwire.codec.text import parse

NUM_VALUES = 1 << 20
LLOYD_MAX = {1: 0.3634, 2: 0.1175, 3: 0.03454, 4: 0.009497}
UNBIASED = {1: 0.5708, 2: 0.1331, 3: 0.0358, 4: 0.0096}
BLOCKWISE_BOUND, EDEN_BOUND = 1.25, 1.02


class Row(msgspec.Struct, kw_only=True):
    """One codec: its payload's size, its error, and the bound on error / optimum."""

    codec: str
    bits_per_value: float
    nmse: float
    optimum: float
    ratio: float
    bound: float


def measure(text: str, optimum: float, bound: float) -> Row:
    codec = parse(text)
    values = np.random.default_rng(0).standard_normal(NUM_VALUES).astype(np.float32)
    error = codec.decode(codec.encode(values, seed=1).payload, values.shape).astype(np.float64) - values
    nmse = float(np.square(error).sum() / np.square(values.astype(np.float64)).sum())
    return Row(
        codec=text,
        bits_per_value=round(codec.bits_per_value(values.shape), 4),
        nmse=float(f"{nmse:.4g}"),
        optimum=optimum,
        ratio=round(nmse / optimum, 4),
        bound=bound,
    )


def rows() -> list[Row]:
    return [
        *(measure(f"quantize(bits={bits})", least, BLOCKWISE_BOUND) for bits, least in LLOYD_MAX.items()),
        *(
            measure(f"rotate(quantize(bits={bits}, block=4096, scale=unbiased))", least, EDEN_BOUND)
            for bits, least in UNBIASED.items()
        ),
    ]


if __name__ == "__main__":
    measured = rows()
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(measured), indent=2).decode() + "\n")
    sys.exit(any(row.ratio > row.bound for row in measured))
