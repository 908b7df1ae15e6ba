"""What a training job learns of its network for free (``links()`` and ``wire()`` of its group), against the truth.

    python benchmarks/links_learned.py [SCENARIO ...]

In the lab four hosts train a small model with DistributedDataParallel over thinwire; every rank notes each 0.2 s what
it is told. Puts what it finds into ``benchmarks/results/links_learned.json``, from which ``benchmarks/readme.py`` makes
the table of the guide. Compared are the medians after ``SETTLED_S``, of the host or link that is farthest from its
truth.

What is the truth? All hosts send to all, so a link gets its max-min fair share of the wires, and up to all of them
where others have nothing to send just then; a host's wire carries the sum of its links. Rates of the lab count Ethernet
frames; a program gets 1448 bytes of every 1514. Where the job does not fill the wire, because the cores are the limit,
the figure must say that it is only a lower bound, and be one.

Needs what ``thinwire lab`` needs. What runs inside the hosts is in this file too: ``rank``.
"""

from __future__ import annotations

import io
import itertools
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from thinwire.cli.measurement import Surroundings
from thinwire.clock import SYSTEM_CLOCK
from thinwire.lab import Lab, library
from thinwire.lab.network import Network
from thinwire.lab.resolve import network_of
from thinwire.lab.run import run_everywhere
from thinwire.lab.timeline import timeline
from thinwire.units import three_digits

RESULTS = Path(__file__).resolve().parent / "results" / "links_learned.json"
PAYLOAD_SHARE = 1448 / 1514
SAMPLE_S = 0.2
SETTLED_S = 4.0
SECONDS = {"office-100m": 12.0, "wan-100m-50ms": 20.0, "one-slow-link": 24.0, "fading": 64.0}
WIDTH = 1024  # of a model of 1.3 million parameters
BOUND, RTT_BOUND, RTT_BOUND_S = 0.15, 0.05, 0.0003
CLOSE = 0.25  # so near to its truth a figure counts as having followed


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What one rank was told at one moment: bytes a second, seconds; None where it was told nothing.

    Attributes:
        at_s: since the lab stood.
        wire: what leaves. wire_is_limit, held_share: see ``WireEstimate``.
        links: by rank, and whether that is the network's limit. rtts_s: the least round trips, by rank.
        num_changes: that were flagged, of all links together.
    """

    at_s: float
    wire: float | None
    wire_is_limit: bool
    held_share: float | None
    links: dict[int, tuple[float, bool]]
    rtts_s: dict[int, float]
    num_changes: int


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """One figure: the host or link that is farthest from its truth.

    Attributes:
        what: in words.
        truth, told: in Mbit/s or ms. is_limit: whether it was said to be the network's limit; None for round trips.
        error: relative to the bound; above 1 it is broken.
    """

    what: str
    truth: float
    told: float
    is_limit: bool | None
    error: float


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One change of the network: from, to (Mbit/s), and how long the slowest host took to be told something within
    ``CLOSE`` of it, or, where the job does not fill the wire, a lower bound that is none above it; None: never.
    """

    before: float
    after: float
    followed_s: float | None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    scenario: str
    held_share: float
    rows: tuple[Learned, ...]
    steps: tuple[Step, ...]
    flagged_s: float | None  # from the first change to the moment when every host had flagged one
    surroundings: Surroundings


def rank(file: Path, began_s: float, seconds: float) -> None:
    """One of the hosts: trains, and notes what it is told."""
    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel

    import thinwire  # noqa: F401  (registers the backend)

    torch.set_num_threads(1)
    dist.init_process_group("thinwire")
    model = nn.Sequential(
        *(nn.Linear(256, WIDTH), nn.ReLU()), *(nn.Linear(WIDTH, WIDTH), nn.ReLU()), nn.Linear(WIDTH, 10)
    )
    network = DistributedDataParallel(model, bucket_cap_mb=1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    group: Any = dist.distributed_c10d._get_default_group()
    samples: list[Sample] = []
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(SAMPLE_S):
            samples.append(sample(group, SYSTEM_CLOCK.now_s() - began_s))

    watcher = threading.Thread(target=watch)
    watcher.start()
    over = torch.zeros(1)
    while not over:
        optimizer.zero_grad()
        network(torch.randn(32, 256)).square().mean().backward()
        optimizer.step()
        over.fill_(SYSTEM_CLOCK.now_s() - began_s > seconds)
        dist.all_reduce(over, dist.ReduceOp.MAX)
    is_over.set()
    watcher.join()
    (file / str(dist.get_rank())).write_bytes(msgspec.json.encode(samples))
    dist.destroy_process_group()


def sample(group: Any, at_s: float) -> Sample:
    wire, links = group.wire(), group.links()
    return Sample(
        at_s=at_s,
        wire=wire.outgoing_bytes_per_s.value if wire.outgoing_bytes_per_s else None,
        wire_is_limit=wire.outgoing_is_limit,
        held_share=wire.held_share,
        links={
            peer: (link.outgoing_bytes_per_s.value, link.outgoing_is_limit)
            for peer, link in links.items()
            if link.outgoing_bytes_per_s
        },
        rtts_s={peer: link.rtt_min_s for peer, link in links.items() if link.rtt_min_s},
        num_changes=sum(link.num_changes for link in links.values()),
    )


def measure(scenario: str) -> list[list[Sample]]:
    """What every rank was told, over time."""
    with tempfile.TemporaryDirectory() as folder, Lab(scenario) as lab:
        said = io.StringIO()
        began_s = SYSTEM_CLOCK.now_s()
        command = [sys.executable, __file__, "rank", folder, str(began_s), str(SECONDS[scenario])]
        statuses = run_everywhere(lab.record, command, stdout=io.StringIO(), stderr=said)
        if any(statuses.values()):
            raise SystemExit(f"training failed with {statuses}:\n{said.getvalue()}")
        return [
            msgspec.json.decode((Path(folder) / str(number)).read_bytes(), type=list[Sample])
            for number in range(len(lab.record.hosts))
        ]


def fair_shares(network: Network, rates: Sequence[float]) -> dict[tuple[int, int], float]:
    """What each directed link gets when all hosts send to all, by progressive filling; ``rates`` of the pipes."""
    paths = {ends: network.path(*ends) for ends in itertools.permutations(range(network.num_hosts), 2)}
    left = dict(enumerate(rates))
    shares = dict.fromkeys(paths, 0.0)
    growing = set(paths)
    while growing:
        users = {pipe: sum(pipe in paths[ends] for ends in growing) for pipe in left}
        step = min(left[pipe] / count for pipe, count in users.items() if count)
        for ends in growing:
            shares[ends] += step
        left = {pipe: rest - step * users[pipe] for pipe, rest in left.items()}
        growing = {ends for ends in growing if all(left[pipe] > 1 for pipe in paths[ends])}
    return {ends: share * PAYLOAD_SHARE for ends, share in shares.items()}


def rates_over_time(scenario: str, until_s: float) -> Iterator[tuple[float, tuple[float, ...]]]:
    """From when on the pipes have which rates."""
    spec = library.load(scenario)
    network = network_of(spec)
    rates = [pipe.rate_bytes_per_s for pipe in network.pipes]
    changes = itertools.takewhile(lambda change: change.at_s < until_s, timeline(spec, network))
    for at_s, group in itertools.groupby(changes, key=lambda change: change.at_s):
        if at_s:
            yield_rates = tuple(rates)
        for change in group:
            rates[change.number] = change.value
        if at_s and tuple(rates) != yield_rates:
            yield at_s, tuple(rates)


def judged(scenario: str, told: Sequence[Sequence[Sample]]) -> Result:
    network = network_of(library.load(scenario))
    changes = list(rates_over_time(scenario, SECONDS[scenario]))
    shares = fair_shares(network, [pipe.rate_bytes_per_s for pipe in network.pipes])
    until_s = changes[0][0] if changes else float("inf")
    steady = [[each for each in samples if each.at_s < until_s] for samples in told]
    steady = [
        [each for each in samples if each.at_s > samples[0].at_s + SETTLED_S] or samples[-1:]
        for samples in steady
    ]
    held = statistics.median(each.held_share or 0.0 for samples in steady for each in samples)
    flagged = [_first_flag(samples, until_s) for samples in told]
    return Result(
        scenario=scenario,
        held_share=held,
        rows=tuple(_rows(network, shares, steady)),
        steps=tuple(_steps(network, changes, told)),
        flagged_s=max(flagged, default=None) if changes and None not in flagged else None,  # type: ignore[type-var]
        surroundings=Surroundings.of_this_machine(),
    )


def _rows(
    network: Network, shares: dict[tuple[int, int], float], steady: Sequence[Sequence[Sample]]
) -> Iterator[Learned]:
    wires, links, trips = [], [], []
    for host, samples in enumerate(steady):
        is_limit = statistics.median(each.wire_is_limit for each in samples) > 0.5
        wire = statistics.median(each.wire or 0.0 for each in samples)
        truth = sum(share for ends, share in shares.items() if ends[0] == host)
        uplink = network.pipes[network.uplink(host)].rate_bytes_per_s * PAYLOAD_SHARE
        wires.append(_rate("wire of a host", truth, wire, is_limit, uplink))
        for peer in range(network.num_hosts):
            if peer != host:
                seen = [each.links.get(peer, (0.0, False)) for each in samples]
                rate, is_limit = (statistics.median(column) for column in zip(*seen, strict=True))
                links.append(_link(network, host, peer, shares[host, peer], rate, is_limit > 0.5))
                trips.append(_round_trip(network, host, peer, [each.rtts_s.get(peer) for each in samples]))
    for found in (wires, links, trips):
        yield max(found, key=lambda row: row.error)


def _rate(what: str, truth: float, told: float, is_limit: bool, at_most: float) -> Learned:
    """A lower bound is wrong if it is above what the wire can carry; a limit if it is off in either direction."""
    off = abs(told / truth - 1) if is_limit else max(0.0, told / at_most - 1)
    return Learned(what=what, truth=truth * 8e-6, told=told * 8e-6, is_limit=is_limit, error=off / BOUND)


def _link(network: Network, host: int, peer: int, share: float, told: float, is_limit: bool) -> Learned:
    """What it gets is between its share, where all are busy, and the whole way, where nobody else is."""
    alone = PAYLOAD_SHARE * min(network.pipes[pipe].rate_bytes_per_s for pipe in network.path(host, peer))
    off = max(0.0, told / alone - 1, 1 - told / share if is_limit else 0.0)
    return Learned(
        what="link in company", truth=share * 8e-6, told=told * 8e-6, is_limit=is_limit, error=off / BOUND
    )


def _round_trip(network: Network, host: int, peer: int, rtts_s: Sequence[float | None]) -> Learned:
    pipes = (*network.path(host, peer), *network.path(peer, host))
    truth_s = sum(network.pipes[pipe].delay_s for pipe in pipes)
    told_s = statistics.median(rtt_s or 0.0 for rtt_s in rtts_s)
    error = abs(told_s - truth_s) / max(RTT_BOUND_S, RTT_BOUND * truth_s)
    return Learned(
        what="least round trip", truth=truth_s * 1e3, told=told_s * 1e3, is_limit=None, error=error
    )


def _steps(
    network: Network,
    changes: Sequence[tuple[float, tuple[float, ...]]],
    told: Sequence[Sequence[Sample]],
) -> Iterator[Step]:
    ends_s = [*(at_s for at_s, _ in changes[1:]), float("inf")][: len(changes)]
    before = network.pipes[0].rate_bytes_per_s * PAYLOAD_SHARE
    for (at_s, rates), end_s in zip(changes, ends_s, strict=True):
        after = rates[0] * PAYLOAD_SHARE
        followed = []
        for samples in told:
            seen = [each for each in samples if at_s < each.at_s <= end_s]
            close = [each.at_s - at_s for each in seen if abs((each.wire or 0.0) / after - 1) <= CLOSE]
            followed.append(min(close, default=None))
        is_followed = None not in followed
        yield Step(
            before=before * 8e-6,
            after=after * 8e-6,
            followed_s=max(followed) if is_followed else None,  # type: ignore[type-var]
        )
        before = after


def _first_flag(samples: Sequence[Sample], from_s: float) -> float | None:
    before = [each.num_changes for each in samples if each.at_s <= from_s]
    return next(
        (
            each.at_s - from_s
            for each in samples
            if each.at_s > from_s and before and each.num_changes > before[-1]
        ),
        None,
    )


def load() -> list[Result]:
    """What is known, in the order of the scenarios."""
    known = msgspec.json.decode(RESULTS.read_bytes(), type=list[Result]) if RESULTS.exists() else []
    return sorted(known, key=lambda result: list(SECONDS).index(result.scenario))


def table(results: Sequence[Result]) -> Iterator[str]:
    """For the guide."""
    days = sorted({result.surroundings.day for result in results})
    yield f"Made by `benchmarks/links_learned.py` in the lab, {results[0].surroundings}, {' to '.join(days)}."
    yield "Truth, and what the host or link that is farthest from it was told; beyond its bound it is **bold**."
    yield "Changes: how long the slowest host took to be told something near the new truth.\n"
    yield (
        "| scenario | wire of a host, Mbit/s | a link beside others, Mbit/s | least round trip, ms "
        "| the network held back | changes of the wire |"
    )
    yield "| --- | --- | --- | --- | ---: | --- |"
    for result in results:
        cells = [_cell(row) for row in result.rows]
        changes = "; ".join(_change(step) for step in result.steps)
        yield f"| `{result.scenario}` | {' | '.join(cells)} | {result.held_share:.0%} of the time | {changes} |"


def _cell(row: Learned) -> str:
    bound = "" if row.is_limit is None else ", a limit" if row.is_limit else ", or more"
    told = f"{three_digits(row.truth)}, {three_digits(row.told)}{bound}"
    return told if row.error <= 1 else f"**{told}**"


def _change(step: Step) -> str:
    followed = "never" if step.followed_s is None else f"after {step.followed_s:.1f} s"
    return f"{step.before:.3g} to {step.after:.3g} {followed}"


def show(result: Result) -> None:
    title = f"{result.scenario}: the network held sends back {result.held_share:.0%} of the time"
    table = Table("what", "truth", "told", "is the limit", "", title=title, title_justify="left")
    for row in result.rows:
        limit = "" if row.is_limit is None else str(row.is_limit)
        table.add_row(
            row.what, f"{row.truth:.4g}", f"{row.told:.4g}", limit, "met" if row.error <= 1 else "BROKEN"
        )
    for step in result.steps:
        followed = "never" if step.followed_s is None else f"{step.followed_s:.1f} s"
        table.add_row("followed", f"{step.before:.4g} to {step.after:.4g}", followed, "", "")
    if result.flagged_s is not None:
        table.add_row("first change flagged", "", f"{result.flagged_s:.1f} s", "", "")
    Console(width=120).print(table)


def main(names: Sequence[str]) -> int:
    for name in names or SECONDS:
        result = judged(name, measure(name))
        show(result)
        others = [known for known in load() if known.scenario != name]
        RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode([*others, result])) + b"\n")
    return 0 if all(row.error <= 1 for result in load() for row in result.rows) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["rank"]:
        rank(Path(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
    else:
        sys.exit(main(sys.argv[1:]))
