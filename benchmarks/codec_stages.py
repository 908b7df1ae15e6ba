"""How fast sparse, low-rank, homomorphic and entropy coding are on one core, against copying the same array.

    python benchmarks/codec_stages.py > benchmarks/results/codec_stages.json

Each round runs every stage once, ``numpy.copyto`` of 64 MiB of float32 first; figures are medians over the rounds, so
that what slows the machine slows all alike. Time is that of the core, not of the clock: else throughput, which is
counted without a ratio, would tell what else the machine did. Throughput is counted in float32 bytes, that of the
entropy coder in symbols. Fails if a bound does not hold.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from statistics import median

import msgspec
import numpy as np

from thinwire.codec.base import Codec
from thinwire.codec.homomorphic import Homomorphic
from thinwire.codec.low_rank import LowRank
from thinwire.codec.rans import compress, decompress
from thinwire.codec.sparse_indices import decode_indices, encode_indices
from thinwire.codec.top_k import TopK

SHAPE = (4096, 4096)
NUM_ROUNDS = 7
TOP_K_BOUND, ENTROPY_BOUND_MB_PER_S = 0.25, 250.0


class Row(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Throughput of a stage; ``ratio`` is that to copyto, and ``bound`` what it or the throughput must reach."""

    what: str
    megabytes_per_s: float
    ratio: float
    bound: float = 0.0
    bound_is_of: str = ""


class Stage(msgspec.Struct):
    """What to time, and how many bytes one run of it stands for."""

    what: str
    run: Callable[[], object]
    num_bytes: int
    bound: float = 0.0
    bound_is_of: str = ""


def feedback_stage(codec: Codec, values: np.ndarray, bound: float = 0.0) -> Stage:
    """Encode with a residual that goes on from round to round, into memory that is there."""
    shape = values.shape
    residual, state = np.zeros_like(values), codec.initial_state(shape)
    payload = np.empty(codec.payload_bound(shape), np.uint8)
    return Stage(
        f"{codec}, encode with feedback",
        lambda: codec.encode_with_residual(values, residual, state, 1, payload, state),
        values.nbytes,
        bound,
        "ratio" if bound else "",
    )


def add_stage(codec: Codec, values: np.ndarray) -> Stage:
    payload, _ = codec.encode(values)
    out = np.zeros_like(values)
    return Stage(f"{codec}, add decoded", lambda: codec.add_decoded(payload, out), values.nbytes)


def index_stages(values: np.ndarray) -> list[Stage]:
    kept = TopK(64, block=4096).kept(values.shape)
    rng = np.random.default_rng(1)
    own = np.sort(rng.random((kept.total // 64, 4096)).argpartition(64, axis=1)[:, :64], axis=1)
    positions = own.astype(np.uint32).reshape(-1)
    out = np.empty(2 * positions.size, np.uint8)
    num_bytes = encode_indices(positions, kept, out)
    return [
        Stage("64 of 4096, indices to bits", lambda: encode_indices(positions, kept, out), positions.nbytes),
        Stage("64 of 4096, bits to indices", lambda: decode_indices(out[:num_bytes], kept), positions.nbytes),
    ]


def entropy_stages() -> list[Stage]:
    """Pairs of 4-bit levels of normal values."""
    values = np.random.default_rng(0).standard_normal((2, 1 << 24), dtype=np.float32)
    low, high = np.clip(np.floor((values + 3) / 6 * 16), 0, 15).astype(np.uint8)
    symbols = low | high << 4
    out = np.empty(symbols.size + 1, np.uint8)
    payload = out[: compress(symbols, out)].copy()
    bound = (ENTROPY_BOUND_MB_PER_S, "megabytes_per_s")
    return [
        Stage("rans, encode symbols", lambda: compress(symbols, out), symbols.size, *bound),
        Stage("rans, decode symbols", lambda: decompress(payload, symbols.size), symbols.size, *bound),
    ]


def main() -> int:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    values = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    target = np.empty_like(values)
    copying = Stage("numpy.copyto", lambda: np.copyto(target, values), values.nbytes)
    stages = [
        feedback_stage(TopK(0.01), values, TOP_K_BOUND),
        feedback_stage(TopK(0.001), values, TOP_K_BOUND),
        feedback_stage(TopK(64, block=4096), values, TOP_K_BOUND),
        add_stage(TopK(0.01), values),
        *index_stages(values),
        *entropy_stages(),
        feedback_stage(LowRank(4), values),
        add_stage(LowRank(4), values),
        feedback_stage(Homomorphic(num_contributions=4), values),
        add_stage(Homomorphic(num_contributions=4), values),
    ]
    times: dict[str, list[float]] = {stage.what: [] for stage in [copying, *stages]}
    for round_number in range(NUM_ROUNDS + 1):
        for stage in [copying, *stages]:
            begin = time.thread_time()
            stage.run()
            if round_number:  # the first one compiles
                times[stage.what].append(time.thread_time() - begin)
    copy_rate = copying.num_bytes / median(times[copying.what]) / 1e6
    rows = []
    for stage in [copying, *stages]:
        rate = stage.num_bytes / median(times[stage.what]) / 1e6
        rows.append(
            Row(
                what=stage.what,
                megabytes_per_s=round(rate, 1),
                ratio=round(rate / copy_rate, 3),
                bound=stage.bound,
                bound_is_of=stage.bound_is_of,
            )
        )
    print(msgspec.json.format(msgspec.json.encode(rows), indent=1).decode())
    failed = [row for row in rows if row.bound and getattr(row, row.bound_is_of) < row.bound]
    for bad in failed:
        print(
            f"{bad.what}: {bad.bound_is_of} is {getattr(bad, bad.bound_is_of)}, not {bad.bound}",
            file=sys.stderr,
        )
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
