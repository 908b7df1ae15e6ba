"""How fast codecs are on one core, as ratios to ``numpy.copyto`` of the same array in the same run.

    python benchmarks/codec_speed.py > benchmarks/results/codec_speed.json

64 MiB of normal float32 values. A ratio is the time that copyto takes over the time of the codec, each the least of
turns taken one after the other; time is that of the core, not of the clock. Exits with 1 if a bound does not hold. Not
here: error (``codec_quality``).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import msgspec
import numpy as np

from thinwire.codec.feedback import ErrorFeedback
from thinwire.codec.text import parse

NUM_VALUES = 1 << 24
TURNS = 9
ENCODE_BOUND, DECODE_BOUND, CAST_BOUND = 0.35, 0.6, 0.7
QUANTIZERS = ("quantize(bits=8)", "quantize(bits=4)", "quantize(bits=2)", "quantize(bits=1)")
CASTS = ("cast(to=float16)", "cast(to=bfloat16)")
UNBOUND = (
    "cast(to=float8_e4m3)",
    "quantize(bits=4, rounding=stochastic)",
    "rotate(quantize(bits=4, block=4096))",
    "sign",
)


class Row(msgspec.Struct, kw_only=True):
    """One function of one codec; ``bound`` is the least ratio, 0 where none was set."""

    codec: str
    what: str
    input_bytes_per_s: float
    ratio: float
    bound: float


def measure() -> list[Row]:
    values = np.random.default_rng(0).standard_normal(NUM_VALUES, np.float32)
    residual, out = np.zeros_like(values), np.zeros_like(values)
    jobs: list[tuple[str, str, float, Callable[[], object]]] = []
    for text in (*QUANTIZERS, *CASTS, *UNBOUND):
        codec = parse(text)
        payload = np.zeros(codec.payload_bound(values.shape), np.uint8)
        if text in CASTS:
            bounds = (CAST_BOUND, CAST_BOUND)
            job = lambda codec=codec, payload=payload: codec.encode_into(values, (), 1, payload, ())  # noqa: E731
            what = "encode"
        else:
            bounds = (ENCODE_BOUND, DECODE_BOUND) if text in QUANTIZERS else (0.0, 0.0)
            feedback, state = ErrorFeedback(codec), (residual,)
            job = lambda f=feedback, s=state, p=payload: f.encode_into(values, s, 1, p, s)  # noqa: E731
            what = "encode with error feedback"
        jobs.append((text, what, bounds[0], job))
        jobs.append((text, "decode and add", bounds[1], lambda c=codec, p=payload: c.add_decoded(p, out)))
    copy_s = [np.inf]
    taken_s = [[np.inf] for _ in jobs]
    for turn in range(TURNS):
        for times_s, (*_, job) in zip(taken_s, jobs, strict=True):
            copy_s.append(timed_s(lambda: np.copyto(out, values)))
            if turn < 3 or min(times_s) < 0.5:
                times_s.append(timed_s(job))
    return [
        Row(
            codec=text,
            what=what,
            input_bytes_per_s=float(f"{values.nbytes / min(times_s):.3g}"),
            ratio=round(min(copy_s) / min(times_s), 3),
            bound=bound,
        )
        for times_s, (text, what, bound, _) in zip(taken_s, jobs, strict=True)
    ]


def timed_s(job: Callable[[], object]) -> float:
    start_s = time.thread_time()
    job()
    return time.thread_time() - start_s


if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    measured = measure()
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(measured), indent=2).decode() + "\n")
    sys.exit(any(row.ratio < row.bound for row in measured))
