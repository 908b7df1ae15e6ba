"""An all-reduce that travels encoded: seconds beside what the links allow for its bytes.

    python benchmarks/coded_all_reduce.py > benchmarks/results/coded_all_reduce.json

Four ranks, one bucket of 25 MB of float32, in the lab's shaped networks and without limits on loopback. Every rank
sends and receives ``2(p-1)/p`` times the bytes of the bucket's payload; each 1448 bytes travel in a frame of 1514
(Ethernet, IPv4 and TCP with timestamps). The share is that time over the measured one, so 100 % is the link's limit; a
host that has fewer cores than ranks may spend longer encoding than the wire takes. Fidelities are measured in turn,
with error feedback, and a time is the slowest rank's, from the barrier before the call.

``submit_s`` is how long the call itself holds the training thread; ``cpu_s`` the seconds of a core that a rank spends.
"""

from __future__ import annotations

import io
import resource
import statistics
import sys
import time
from datetime import timedelta
from typing import Any

import msgspec
import torch
import torch.distributed as dist

import thinwire
from thinwire.cli.local_ranks import words_of_rank_0
from thinwire.codec.text import parse
from thinwire.lab import Lab, run_everywhere

NUM_RANKS = 4
BUCKET_BYTES = 25_000_000
NUM_ELEMENTS = BUCKET_BYTES // 4
TURNS = 5
FRAME_BYTES, PAYLOAD_BYTES = 1514, 1448
SCENARIOS = {"lan-1g": 1e9, "office-100m": 100e6}  # and the rate of every host's link in bits a second
FIDELITIES = (
    "exact",
    "cast(to=bfloat16)",
    "quantize(bits=8)",
    "quantize(bits=4)",
    "quantize(bits=2)",
    "quantize(bits=1)",
)
MARK = "row: "


class Row(msgspec.Struct, kw_only=True):
    """The median of one fidelity's turns in one network."""

    network: str
    fidelity: str
    time_s: float
    submit_s: float
    cpu_s: float
    bytes_sent: int
    share_of_link: float | None


def measure(network: str) -> list[Row]:
    """On one rank: all fidelities, turn by turn."""
    torch.set_num_threads(1)
    memory = thinwire.CodecMemory()
    bucket = torch.randn(NUM_ELEMENTS, generator=torch.Generator().manual_seed(dist.get_rank()))
    tensor = bucket.clone()
    samples: dict[str, list[tuple[float, float, float]]] = {fidelity: [] for fidelity in FIDELITIES}
    for turn in range(TURNS + 1):
        for fidelity in FIDELITIES:
            tensor.copy_(bucket)
            sample = sample_of(tensor, fidelity, memory)
            if turn:  # the first compiles, connects and fills pools
                samples[fidelity].append(sample)
    rows = []
    for fidelity, found in samples.items():
        time_s, submit_s, cpu_s = (statistics.median(column) for column in zip(*found, strict=True))
        encoded_bytes = BUCKET_BYTES
        if fidelity != "exact":
            encoded_bytes = parse(fidelity).payload_bound((NUM_ELEMENTS,))
        bytes_sent = 2 * (NUM_RANKS - 1) * encoded_bytes // NUM_RANKS
        share = None
        if network in SCENARIOS:
            share = bytes_sent * FRAME_BYTES / PAYLOAD_BYTES * 8 / SCENARIOS[network] / time_s
        rows.append(
            Row(
                network=network,
                fidelity=fidelity,
                time_s=time_s,
                submit_s=submit_s,
                cpu_s=cpu_s,
                bytes_sent=bytes_sent,
                share_of_link=share,
            )
        )
    return rows


def sample_of(
    tensor: torch.Tensor, fidelity: str, memory: thinwire.CodecMemory
) -> tuple[float, float, float]:
    """Seconds of the slowest rank, of the call, and of this process's cores."""
    kept = memory[fidelity] if fidelity != "exact" else None
    dist.barrier()
    before = resource.getrusage(resource.RUSAGE_SELF)
    begin_s = time.perf_counter()
    work = thinwire.all_reduce(tensor, fidelity=fidelity, memory=kept, async_op=True)
    submitted_s = time.perf_counter()
    assert work is not None
    work.wait()
    end_s = time.perf_counter()
    after = resource.getrusage(resource.RUSAGE_SELF)
    slowest = torch.tensor([end_s - begin_s, submitted_s - begin_s])
    dist.all_reduce(slowest, dist.ReduceOp.MAX)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return float(slowest[0]), float(slowest[1]), cpu_s


def be_a_local_rank(say: Any, network: str, init_method: str) -> None:
    """Where there is no launcher: on loopback."""
    import os

    rank = int(os.environ["RANK"])
    dist.init_process_group("thinwire", init_method, timedelta(seconds=60), NUM_RANKS, rank)
    for row in measure(network):
        say(row)
    dist.destroy_process_group()


def be_a_host(network: str) -> None:
    """In the lab: the environment says which rank this is."""
    dist.init_process_group("thinwire", timeout=timedelta(seconds=120))
    rows = measure(network)
    if dist.get_rank() == 0:
        for row in rows:
            print(MARK + msgspec.json.encode(row).decode())
    dist.destroy_process_group()


def in_the_lab(scenario: str) -> list[Row]:
    heard = io.StringIO()
    with Lab(scenario) as lab:
        statuses = run_everywhere(lab.record, [sys.executable, __file__, scenario], stdout=heard)
    if any(statuses.values()):
        raise SystemExit(f"{scenario}: a rank failed: {statuses}")
    lines = [line.split(MARK, 1)[1] for line in heard.getvalue().splitlines() if MARK in line]
    return [msgspec.json.decode(line, type=Row) for line in lines]


def main() -> None:
    if len(sys.argv) > 1:
        be_a_host(sys.argv[1])
        return
    rows = list(words_of_rank_0(be_a_local_rank, "loopback", NUM_RANKS))
    for scenario in SCENARIOS:
        rows += in_the_lab(scenario)
    for row in rows:
        share = "" if row.share_of_link is None else f"  {row.share_of_link:.1%} of the link"
        print(
            f"{row.network:12} {row.fidelity:18} {row.time_s * 1e3:8.1f} ms, call {row.submit_s * 1e3:5.2f} ms,"
            f" {row.cpu_s * 1e3:6.1f} ms of a core{share}",
            file=sys.stderr,
        )
    print(msgspec.json.format(msgspec.json.encode(rows)).decode())


if __name__ == "__main__":
    main()
