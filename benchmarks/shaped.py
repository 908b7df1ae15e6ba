"""How much of a shaped link an all-reduce uses, thinwire's and Gloo's, in the lab's networks.

    python benchmarks/shaped.py > benchmarks/results/shaped.json

An all-reduce moves ``2(n-1)/n`` times its size into and out of every rank. On the wire each 1448 bytes of it travel
in a frame of 1514 (Ethernet, IPv4 and TCP with timestamps); the share is that time over the measured one, so 100 %
is the link's limit, headers included.
"""

from __future__ import annotations

import io
import sys

import msgspec

from thinwire.cli.measurement import Report
from thinwire.lab import Lab, run_everywhere

SIZE = "16MiB"
PAIRS = 5
FRAME_BYTES, PAYLOAD_BYTES = 1514, 1448
SCENARIOS = {"lan-1g": 1e9, "office-100m": 100e6}  # and the rate of every host's link in bits a second


class Share(msgspec.Struct, kw_only=True):
    """The median over the turns of one backend in one network."""

    scenario: str
    congestion_control: str
    backend: str
    time_s: float
    share_of_link: float


def measure(scenario: str, congestion_control: str) -> list[Share]:
    """Both backends in one lab, in turn."""
    command = [sys.executable, "-m", "thinwire", "bench", "all-reduce", "--against", "gloo", "--json"]
    command += ["--min-bytes", SIZE, "--max-bytes", SIZE, "--pairs", str(PAIRS)]
    heard = io.StringIO()
    with Lab(scenario, congestion_control=congestion_control) as lab:
        statuses = run_everywhere(lab.record, command, stdout=heard, stderr=io.StringIO())
    if any(statuses.values()):
        raise SystemExit(f"{scenario}: a rank failed: {statuses}")
    lines = [line.split("| ", 1)[1] for line in heard.getvalue().splitlines() if "| " in line]
    shares = []
    for row in msgspec.json.decode("\n".join(lines), type=Report).rows:
        wire_bytes = 2 * (row.num_ranks - 1) / row.num_ranks * row.size_bytes * FRAME_BYTES / PAYLOAD_BYTES
        shares.append(
            Share(
                scenario=scenario,
                congestion_control=congestion_control,
                backend=row.backend,
                time_s=row.time_s,
                share_of_link=wire_bytes * 8 / SCENARIOS[scenario] / row.time_s,
            )
        )
    return shares


def main() -> None:
    shares = []
    for scenario in SCENARIOS:
        for congestion_control in ("bbr", "cubic"):
            for share in measure(scenario, congestion_control):
                shares.append(share)
                print(
                    f"{share.scenario:12} system's {share.congestion_control:6} {share.backend:9}"
                    f" {share.time_s * 1e3:7.1f} ms  {share.share_of_link:.1%} of the link",
                    file=sys.stderr,
                )
    print(msgspec.json.format(msgspec.json.encode(shares)).decode())


if __name__ == "__main__":
    main()
