"""What the probe measures in the lab, against what the lab was told to be.

    python benchmarks/probe_accuracy.py [SCENARIO ...]

Puts what it finds of each scenario into ``benchmarks/results/probe_accuracy.json``, from which ``benchmarks/readme.py``
makes the table of the guide. Demands: bandwidth within 5 %, round trip within 5 % or 0.3 ms, random loss of 1 % and
more within a factor of 1.3, for every link; shared bottlenecks and asymmetric links named where there are some, and
nowhere else. Of the quick form: under one second; bandwidth within 10 % for every link of which it states one, and
the interval that it gives for each has the truth in it (within 2 %).

What is the truth? A rate of the lab counts Ethernet frames; a program gets 1448 bytes of every 1514. What is lost
behind the wire that holds the rate has used that wire for nothing, so of a lossy link's rate the share that arrives
counts, however TCP gets there. Of a loss in bursts a single link's trains see only a few bursts, so there the mean of
all links is compared with the share that is lost in the long run.

Needs what ``thinwire lab`` needs. What runs inside the hosts is in this file too: ``rank``.
"""

from __future__ import annotations

import io
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from thinwire.cli.measurement import Surroundings
from thinwire.clock import SYSTEM_CLOCK
from thinwire.lab import Lab, Scenario, library
from thinwire.lab.network import Network
from thinwire.lab.resolve import network_of
from thinwire.lab.run import run_everywhere
from thinwire.lab.scenario import Access
from thinwire.probe import probe
from thinwire.topology import Link, Topology

RESULTS = Path(__file__).resolve().parent / "results" / "probe_accuracy.json"
PAYLOAD_SHARE = 1448 / 1514
BANDWIDTH_BOUND, RTT_BOUND, RTT_BOUND_S, LOSS_BOUND, LOSS_LEAST = 0.05, 0.05, 0.0003, 1.3, 0.009
QUICK_BOUND, QUICK_BOUND_S, INTERVAL_BOUND = 0.10, 1.0, 0.02
NOT_MEASURED = 1000.0  # as an error
# Scenarios, and the words of the findings that each has to have; it may have no other of their kind.
TELLING = {
    "home": ["all hosts receive"],
    "mobile": ["all hosts receive"],
    "one-slow-link": ["host3's uplink and downlink are"],
    "two-sites": [
        "the 4 links from host0 and host1 to host2 and host3 share",
        "the 4 links from host2 and host3 to host0 and host1 share",
    ],
}
# Two flows of 1 Gbit/s with a delay are more than two cores can emulate (see lab_fidelity), so that one has two hosts.
HOSTS = {"wan-1g-100ms": 2}
MANY = {"sixteen hosts": Scenario(summary="", hosts=16, access=Access(rate_mbit=100))}
SHIPPED = (
    *("ten-megabit", "office-100m", "lan-1g", "one-slow-link", "home", "two-sites"),
    *("wan-100m-50ms", "wan-1g-100ms", "mobile"),
)
LOSSY = {
    f"loss of {loss:.0%}": Scenario(summary="", hosts=3, access=Access(rate_mbit=100, delay_ms=2, loss=loss))
    for loss in (0.01, 0.03)
}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One demand: the link that is farthest from its truth, how far, and how far it may be.

    Attributes:
        truth, measured: of that link; or the words that are expected, and those that were found.
        error: the relative error; of the round trip, as a share of what is allowed; of loss, the factor.
    """

    demand: str
    truth: float | str
    measured: float | str
    error: float
    bound: float

    @property
    def is_met(self) -> bool:
        return self.error <= self.bound


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario.

    Attributes:
        full_s, quick_s: what the two forms took, without the launching.
    """

    scenario: str
    num_hosts: int
    full_s: float
    quick_s: float
    rows: tuple[Row, ...]
    surroundings: Surroundings


class Probed(msgspec.Struct, frozen=True):
    """What one rank saw: form -> when it began and ended, on the machine's clock; and the topologies."""

    times_s: dict[str, tuple[float, float]]
    topologies: dict[str, Topology]


def measure(scenario: str | Scenario) -> dict[str, tuple[float, Topology]]:
    """Probe in a lab. Returns for each form how long it took, from when all had begun to when all had ended, and the
    topology."""
    with tempfile.TemporaryDirectory() as folder, Lab(scenario) as lab:
        said = io.StringIO()
        command = [sys.executable, __file__, "rank", folder]
        statuses = run_everywhere(lab.record, command, stdout=io.StringIO(), stderr=said)
        if any(statuses.values()):
            raise SystemExit(f"the probe failed with {statuses}:\n{said.getvalue()}")
        probed = [msgspec.json.decode(file.read_bytes(), type=Probed) for file in Path(folder).iterdir()]
        found = {}
        for form, topology in probed[0].topologies.items():
            began_s, ended_s = (
                max(times) for times in zip(*(one.times_s[form] for one in probed), strict=True)
            )
            found[form] = ended_s - began_s, topology
        return found


def rank(folder: Path) -> None:
    """One of the hosts: both forms, one after the other."""
    from torch.distributed.rendezvous import rendezvous

    number, num_ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = next(rendezvous("env://", number, num_ranks))[0]
    probed = Probed({}, {})
    for form in ("quick", "full"):
        began_s = SYSTEM_CLOCK.now_s()
        probed.topologies[form] = probe(store, number, num_ranks, form=form)
        probed.times_s[form] = began_s, SYSTEM_CLOCK.now_s()
    (folder / str(number)).write_bytes(msgspec.json.encode(probed))


def rows(name: str, scenario: Scenario, full: Topology, quick: Topology, quick_s: float) -> Iterator[Row]:
    network = network_of(scenario)
    yield worst("bandwidth", [bandwidth(network, link) for link in full.links], BANDWIDTH_BOUND)
    yield worst("round trip", [round_trip(network, link) for link in full.links], 1.0)
    lossy = [found for link in full.links if (found := loss(network, link))[0] >= LOSS_LEAST]
    if lossy and any(pipe.burst_loss for pipe in network.pipes):
        truth, measured = (statistics.mean(column) for column in list(zip(*lossy, strict=True))[:2])
        yield worst("loss", [(truth, measured, factor(truth, measured))], LOSS_BOUND)
    elif lossy:
        yield worst("loss", lossy, LOSS_BOUND)
    expected = TELLING.get(name, [])
    telling = [
        finding
        for finding in full.findings
        if any(words in finding for words in ("share", "uplink", "downlink", "carries"))
    ]
    is_named = all(any(words in finding for finding in telling) for words in expected)
    is_true = all(any(words in finding for words in expected) for finding in telling)
    yield Row(
        demand="what stands out",
        truth="; ".join(expected) or "nothing",
        measured="; ".join(telling) or "nothing",
        error=float(not (is_named and is_true)),
        bound=0,
    )
    rates = [bandwidth(network, link) for link in quick.links if link.bandwidth_bytes_per_s]
    if rates:
        yield worst("bandwidth, quick form", rates, QUICK_BOUND)
    else:  # it knows that it does not know
        yield Row(demand="bandwidth, quick form", truth=0.0, measured=0.0, error=0, bound=0)
    yield worst("interval, quick form", [interval(network, link) for link in quick.links], INTERVAL_BOUND)
    stated = len(rates) / max(1, len(quick.links))
    yield Row(demand="stated, quick form", truth=1.0, measured=stated, error=0, bound=0)
    yield Row(
        demand="seconds, quick form",
        truth=QUICK_BOUND_S,
        measured=quick_s,
        error=quick_s,
        bound=QUICK_BOUND_S,
    )
    for topology in (full, quick):
        if topology.gaps:
            yield Row(demand="no gaps", truth="none", measured=str(topology.gaps), error=1, bound=0)


def bandwidth(network: Network, link: Link) -> tuple[float, float, float]:
    """Truth, measurement and error."""
    rate = min(network.pipes[pipe].rate_bytes_per_s for pipe in path(network, link))
    rate *= PAYLOAD_SHARE * (1 - loss(network, link)[0])
    measured = link.bandwidth_bytes_per_s or 0.0
    return rate * 8e-6, measured * 8e-6, abs(measured / rate - 1)


def interval(network: Network, link: Link) -> tuple[float, float, float]:
    """The truth, the end of the interval that is nearer, and by how much the truth is outside."""
    truth = bandwidth(network, link)[0]
    low, high = (
        end * 8e-6 if end else end for end in (link.burst_low_bytes_per_s, link.burst_high_bytes_per_s)
    )
    if low is not None and low > truth:
        return truth, low, low / truth - 1
    if high is not None and high < truth:
        return truth, high, 1 - high / truth
    return truth, truth, 0.0


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
    truth, measured = 1 - kept, link.loss or 0.0
    return truth, measured, factor(truth, measured) if truth else 1.0


def factor(truth: float, measured: float) -> float:
    return max(truth / max(measured, 1e-9), measured / truth)


def path(network: Network, link: Link, *, back: bool = False) -> tuple[int, ...]:
    ends = [network.hosts.index(name) for name in link.ends]
    return network.path(*(reversed(ends) if back else ends))


def worst(demand: str, found: Sequence[tuple[float, float, float]], bound: float) -> Row:
    truth, measured, error = max(found, key=lambda link: link[2])
    if not measured or math.isinf(measured):
        return Row(demand=demand, truth=truth, measured="not measured", error=NOT_MEASURED, bound=bound)
    return Row(demand=demand, truth=truth, measured=measured, error=error, bound=bound)


def load() -> list[Result]:
    """What is known, in the order of the scenarios."""
    known = msgspec.json.decode(RESULTS.read_bytes(), type=list[Result]) if RESULTS.exists() else []
    order = [*SHIPPED, *LOSSY, *MANY]
    return sorted(known, key=lambda result: order.index(result.scenario))


def main(names: Sequence[str]) -> int:
    scenarios = {name: library.load(name) for name in SHIPPED} | LOSSY | MANY
    all_met = True
    for name in names or scenarios:
        scenario = scenarios[name]
        if name in HOSTS:
            scenario = msgspec.structs.replace(scenario, hosts=HOSTS[name])
        found = measure(scenario)
        (quick_s, quick), (full_s, full) = found["quick"], found["full"]
        result = Result(
            scenario=name,
            num_hosts=len(full.hosts),
            full_s=full_s,
            quick_s=quick_s,
            rows=tuple(rows(name, scenario, full, quick, quick_s)),
            surroundings=Surroundings.of_this_machine(),
        )
        all_met &= all(row.is_met for row in result.rows)
        show(result)
        others = [known for known in load() if known.scenario != name]
        RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode([*others, result])) + b"\n")
    return 0 if all_met else 1


def show(result: Result) -> None:
    title = f"{result.scenario}: full form {result.full_s:.1f} s, quick form {result.quick_s:.2f} s"
    table = Table("demand", "truth", "worst link", "error", "bound", "", title=title, title_justify="left")
    for row in result.rows:
        values = [
            value if isinstance(value, str) else f"{value:.4g}"
            for value in (row.truth, row.measured, row.error, row.bound)
        ]
        table.add_row(row.demand, *values, "met" if row.is_met else "BROKEN")
    Console(width=150).print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["rank"]:
        rank(Path(sys.argv[2]))
    else:
        sys.exit(main(sys.argv[1:]))
