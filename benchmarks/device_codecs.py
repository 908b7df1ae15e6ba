"""How fast codecs are on a GPU, as shares of the rate at which that GPU copies its own memory, in the same run.

    python benchmarks/device_codecs.py > benchmarks/results/device_codecs.json

256 MiB of normal float32 values. A share is the bytes that a codec must read and write for each second it takes, over
the same of a copy on the device, each at the least time of turns taken one after the other; time is that of the
device's events. Exits with 1 if a share is below the bound; says so in one line, and measures nothing, where there is
no CUDA device or no Triton. Not here: the host's codecs (``codec_speed``), and the way to the host.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable

import msgspec
import torch

from thinwire.codec.device.base import device_form
from thinwire.codec.text import parse

NUM_VALUES = 1 << 26
TURNS = 9
BOUND = 0.8
FORMS = (
    *(f"quantize(bits={bits})" for bits in (8, 4, 2, 1)),
    "cast(to=float16)",
    "cast(to=bfloat16)",
    "sign",
)


class Row(msgspec.Struct, kw_only=True):
    """One function of one codec."""

    codec: str
    what: str
    input_bytes_per_s: float
    share: float


class Report(msgspec.Struct, kw_only=True):
    """What was measured, and on what."""

    device: str
    copy_bytes_per_s: float  # read and written
    bound: float
    rows: list[Row]


def measure(device: torch.device, num_values: int, turns: int) -> Report:
    values = torch.randn(num_values, device=device)
    residual, out = torch.zeros_like(values), torch.zeros_like(values)
    jobs: list[tuple[str, str, int, Callable[[], object]]] = []
    for text in FORMS:
        form = device_form(parse(text))
        assert form is not None, text
        num_bytes = form.payload_bytes(num_values)
        payload = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
        encode = lambda f=form, p=payload: f.encode_with_residual(values, residual, p)  # noqa: E731
        add = lambda f=form, p=payload: f.add_decoded(p, out)  # noqa: E731
        jobs.append((text, "encode with error feedback", 3 * values.nbytes + num_bytes, encode))
        jobs.append((text, "decode and add", 2 * values.nbytes + num_bytes, add))
    copy_s = float("inf")
    taken_s = [float("inf")] * len(jobs)
    for _ in range(turns + 1):  # in the first, kernels are compiled
        for index, (*_, job) in enumerate(jobs):
            copy_s = min(copy_s, timed_s(lambda: out.copy_(values)))
            taken_s[index] = min(taken_s[index], timed_s(job))
    copied = 2 * values.nbytes / copy_s
    rows = [
        Row(
            codec=text,
            what=what,
            input_bytes_per_s=float(f"{values.nbytes / least_s:.3g}"),
            share=round(moved / least_s / copied, 3),
        )
        for least_s, (text, what, moved, _) in zip(taken_s, jobs, strict=True)
    ]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    return Report(device=name, copy_bytes_per_s=float(f"{copied:.3g}"), bound=BOUND, rows=rows)


def timed_s(job: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    job()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def main() -> int:
    if not torch.cuda.is_available():
        sys.stderr.write("there is no CUDA device here: nothing was measured\n")
        return 0
    if importlib.util.find_spec("triton") is None:
        sys.stderr.write("Triton is not installed: nothing was measured\n")
        return 0
    report = measure(torch.device("cuda", torch.cuda.current_device()), NUM_VALUES, TURNS)
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n")
    return int(any(row.share < report.bound for row in report.rows))


if __name__ == "__main__":
    sys.exit(main())
