"""What the probe measures in the lab, against what the lab was told to be.

    python benchmarks/probe_accuracy.py [SCENARIO ...]

Demands: bandwidth within 5 %, round trip within 5 % or 0.3 ms, random loss of 1 % and more within a factor of 1.3, for
every link; shared bottlenecks and asymmetric links named where there are some, and nowhere else. A rate of the
lab counts Ethernet frames; a program gets 1448 bytes of every 1514. Needs what ``thinwire lab`` needs.
"""

from __future__ import annotations

import io
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from thinwire.clock import SYSTEM_CLOCK
from thinwire.lab import Lab, Scenario, library
from thinwire.lab.network import Network
from thinwire.lab.resolve import network_of
from thinwire.lab.run import run_everywhere
from thinwire.lab.scenario import Access
from thinwire.topology import Link, Topology, load

PAYLOAD_SHARE = 1448 / 1514
BANDWIDTH_BOUND, RTT_BOUND, RTT_BOUND_S, LOSS_BOUND, LOSS_LEAST = 0.05, 0.05, 0.0003, 1.3, 0.01
# Scenarios, and the words that one finding of each has to contain; none may appear where nothing is said here.
TELLING = {
    "home": "all hosts receive",
    "one-slow-link": "host3's uplink and downlink are 19",
    "two-sites": "the 4 links from host0 and host1 to host2 and host3 share 95",
}
SHIPPED = (
    *("ten-megabit", "office-100m", "lan-1g", "one-slow-link", "home", "two-sites"),
    *("wan-100m-50ms", "wan-1g-100ms", "mobile"),
)
LOSSY = {
    f"loss of {loss:.0%}": Scenario(summary="", hosts=3, access=Access(rate_mbit=100, delay_ms=2, loss=loss))
    for loss in (0.01, 0.03)
}


class Row(NamedTuple):
    """One demand of one scenario: the worst link's error, and its bound."""

    scenario: str
    demand: str
    truth: str
    measured: str
    error: float
    bound: float

    @property
    def is_met(self) -> bool:
        return self.error <= self.bound


def measure(scenario: str | Scenario) -> tuple[Topology, float]:
    """Probe in a lab. Returns the topology, and how long it took with the launching."""
    began_s = SYSTEM_CLOCK.now_s()
    with tempfile.TemporaryDirectory() as folder, Lab(scenario) as lab:
        file = Path(folder) / "topology.toml"
        command = [sys.executable, "-m", "thinwire", "probe", "--output", str(file)]
        said = io.StringIO()
        statuses = run_everywhere(lab.record, command, stdout=io.StringIO(), stderr=said)
        if not file.exists():
            raise SystemExit(f"the probe failed with {statuses}:\n{said.getvalue()}")
        return load(file), SYSTEM_CLOCK.now_s() - began_s


def rows(name: str, scenario: Scenario, topology: Topology) -> Iterator[Row]:
    network = network_of(scenario)
    yield worst(name, "bandwidth", [bandwidth(network, link) for link in topology.links], BANDWIDTH_BOUND)
    yield worst(name, "round trip", [round_trip(network, link) for link in topology.links], 1.0)
    lossy = [found for link in topology.links if (found := loss(network, link))[0] >= LOSS_LEAST]
    if lossy:
        yield worst(name, "loss", lossy, LOSS_BOUND)
    expected = TELLING.get(name)
    telling = [
        finding
        for finding in topology.findings
        if any(words in finding for words in ("share", "uplink", "downlink", "carries"))
    ]
    is_named = any(expected in finding for finding in telling) if expected else not telling
    yield Row(
        name,
        "what stands out",
        expected or "nothing",
        "; ".join(telling) or "nothing",
        float(not is_named),
        0,
    )


def bandwidth(network: Network, link: Link) -> tuple[float, float, float]:
    """Truth, measurement and error."""
    rate = min(network.pipes[pipe].rate_bytes_per_s for pipe in path(network, link)) * PAYLOAD_SHARE
    measured = link.bandwidth_bytes_per_s or 0.0
    return rate * 8e-6, measured * 8e-6, abs(measured / rate - 1)


def round_trip(network: Network, link: Link) -> tuple[float, float, float]:
    """Truth, measurement, and the error as a fraction of what is allowed."""
    pipes = [*path(network, link), *path(network, link, back=True)]
    truth_s = sum(network.pipes[pipe].delay_s for pipe in pipes)
    measured_s = link.rtt_median_s or math.inf
    return truth_s * 1e3, measured_s * 1e3, abs(measured_s - truth_s) / max(RTT_BOUND_S, RTT_BOUND * truth_s)


def loss(network: Network, link: Link) -> tuple[float, float, float]:
    """Truth, measurement, and by which factor they differ."""
    kept = 1.0
    for pipe in (network.pipes[pipe] for pipe in path(network, link)):
        kept *= 1 - pipe.loss
        kept *= 1 - pipe.burst_loss.share * pipe.burst_loss.loss if pipe.burst_loss else 1
    truth, measured = 1 - kept, link.loss or 1e-9
    return truth, measured, max(truth / measured, measured / truth) if truth else 1.0


def path(network: Network, link: Link, *, back: bool = False) -> tuple[int, ...]:
    ends = [network.hosts.index(name) for name in link.ends]
    return network.path(*(reversed(ends) if back else ends))


def worst(name: str, demand: str, found: Sequence[tuple[float, float, float]], bound: float) -> Row:
    truth, measured, error = max(found, key=lambda link: link[2])
    unit = {"bandwidth": "Mbit/s", "round trip": "ms", "loss": ""}[demand]
    return Row(name, demand, f"{truth:.4g} {unit}", f"{measured:.4g} {unit}", error, bound)


def main(names: Sequence[str]) -> int:
    scenarios = {name: library.load(name) for name in SHIPPED} | LOSSY
    table = Table("scenario", "demand", "truth", "worst link", "error", "bound", "")
    all_met = True
    for name in names or scenarios:
        scenario = scenarios[name]
        topology, took_s = measure(scenario)
        for row in rows(name, scenario, topology):
            verdict = "met" if row.is_met else "BROKEN"
            all_met &= row.is_met
            print(
                f"{name} ({took_s:.0f} s): {row.demand}: {row.truth}, {row.measured}, {verdict}",
                file=sys.stderr,
                flush=True,
            )
            table.add_row(
                name, row.demand, row.truth, row.measured, f"{row.error:.3g}", f"{row.bound:.3g}", verdict
            )
    Console(width=140).print(table)
    return 0 if all_met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
