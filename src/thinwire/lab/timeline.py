"""What changes in a network, and when: traces and cuts laid on one axis of time.

Pure, and endless where something repeats; whoever has a clock takes changes off the front (``keeper``).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from typing import NamedTuple

from thinwire.errors import ScenarioError
from thinwire.lab.network import Network, Pipe, Where, index_of
from thinwire.lab.scenario import Cut, Scenario, Trace

_UNITS = {
    "rate_mbit": ("rate_bytes_per_s", 1e6 / 8),
    "delay_ms": ("delay_s", 1e-3),
    "jitter_ms": ("jitter_s", 1e-3),
}


class Change(NamedTuple):
    """One thing that changes.

    Attributes:
        at_s: seconds since the lab is up.
        what: ``"rate_bytes_per_s"``, ``"delay_s"``, ``"jitter_s"`` or ``"loss"`` of a pipe; ``"cut"``.
        number: of the pipe, or of the cut in the scenario.
        value: the new value; of a cut 1 where it begins and 0 where it ends.
    """

    at_s: float
    what: str
    number: int
    value: float


def timeline(scenario: Scenario, network: Network) -> Iterator[Change]:
    """All changes, in order of time.

    >>> from thinwire.lab.resolve import network_of
    >>> trace = Trace(on=["host0.up"], at_s=[0, 2], rate_mbit=[8, 16], every_s=5)
    >>> scenario = Scenario(summary="", hosts=2, trace=[trace])
    >>> changes = timeline(scenario, network_of(scenario))
    >>> [(change.at_s, change.value) for change in itertools.islice(changes, 3)]
    [(0, 1000000.0), (2, 2000000.0), (5, 1000000.0)]
    """
    traces = (_of_trace(trace, network) for trace in scenario.trace)
    cuts = (_of_cut(cut, number) for number, cut in enumerate(scenario.cut))
    return heapq.merge(*traces, *cuts, key=lambda change: change.at_s)


def _of_trace(trace: Trace, network: Network) -> Iterator[Change]:
    pipes = network.pipes_named(trace.on)
    for start_s in _starts(trace.every_s):
        for index, at_s in enumerate(trace.at_s):
            for key in _changed(trace):
                what, scale = _UNITS.get(key, (key, 1.0))
                for pipe in pipes:
                    yield Change(start_s + at_s, what, pipe, getattr(trace, key)[index] * scale)


def _of_cut(cut: Cut, number: int) -> Iterator[Change]:
    for start_s in _starts(cut.every_s):
        yield Change(start_s + cut.at_s, "cut", number, 1.0)
        yield Change(start_s + cut.at_s + cut.for_s, "cut", number, 0.0)


def _starts(every_s: float | None) -> Iterator[float]:
    return iter([0]) if every_s is None else (turn * every_s for turn in itertools.count())


def _changed(trace: Trace) -> list[str]:
    return [key for key in ("rate_mbit", "delay_ms", "jitter_ms", "loss") if getattr(trace, key)]


def pairs_cut(cut: Cut, network: Network) -> set[tuple[int, int]]:
    """The ordered pairs of hosts between which nothing passes during ``cut``."""
    first, second = (network.hosts_named(names) for names in cut.between)
    second = second or set(range(network.num_hosts)) - first
    return {pair for a in first for b in second for pair in ((a, b), (b, a))}


def check_changes(scenario: Scenario, network: Network) -> None:
    """Refuse traces, cuts and background traffic that make no sense.

    Raises:
        ScenarioError: the first that does not.
    """
    for index, trace in enumerate(scenario.trace):
        _check_trace(trace, network, ("trace", index))
    for index, cut in enumerate(scenario.cut):
        _check_cut(cut, network, ("cut", index))
    for index, background in enumerate(scenario.background):
        path = ("background", index)
        for key, name in (("from", background.from_), ("to", background.to)):
            index_of(name, network.hosts, (*path, key))
        if background.from_ == background.to:
            raise ScenarioError((*path, "to"), "a host needs no network to reach itself")
        if (background.on_s is None) != (background.off_s is None):
            raise ScenarioError(path, "on_s and off_s go together")


def _check_trace(trace: Trace, network: Network, path: Where) -> None:
    for pattern in trace.on:
        if not network.pipes_named([pattern]):
            wires = ", ".join(pipe.name for pipe in network.pipes)
            raise ScenarioError((*path, "on"), f"{pattern!r} matches none of the wires {wires}")
    if not _changed(trace):
        raise ScenarioError(path, "this trace changes none of rate_mbit, delay_ms, jitter_ms and loss")
    for key in _changed(trace):
        if (given := len(getattr(trace, key))) != len(trace.at_s):
            raise ScenarioError(
                (*path, key), f"{key} has {given} values and at_s {len(trace.at_s)}; they pair up"
            )
    if any(later <= earlier for earlier, later in itertools.pairwise(trace.at_s)):
        raise ScenarioError((*path, "at_s"), "the times of at_s must ascend")
    for number in network.pipes_named(trace.on):
        _check_jitter(trace, network.pipes[number], path)
    if trace.every_s is not None and trace.at_s[-1] >= trace.every_s:
        last_s = trace.at_s[-1]
        raise ScenarioError((*path, "every_s"), f"it begins again before its last change, at {last_s} s")


def _check_jitter(trace: Trace, pipe: Pipe, path: Where) -> None:
    """Jitter may be half of the delay at most, as without a trace; what the trace does not change holds on."""
    if not (trace.jitter_ms or trace.delay_ms):
        return
    own_ms = [pipe.delay_s * 1e3] * len(trace.at_s), [pipe.jitter_s * 1e3] * len(trace.at_s)
    delays_ms, jitters_ms = trace.delay_ms or own_ms[0], trace.jitter_ms or own_ms[1]
    for at_s, delay_ms, jitter_ms in zip(trace.at_s, delays_ms, jitters_ms, strict=True):
        if jitter_ms > delay_ms / 2 + 1e-9:  # so much for rounding
            raise ScenarioError(
                (*path, "jitter_ms" if trace.jitter_ms else "delay_ms"),
                f"at {at_s:g} s {pipe.name} has a jitter of {jitter_ms:g} ms and a delay of {delay_ms:g} ms; "
                "jitter may be half of the delay at most",
            )


def _check_cut(cut: Cut, network: Network, path: Where) -> None:
    for name in itertools.chain(*cut.between):
        index_of(name, (*network.hosts, *network.sites), (*path, "between"))
    if not cut.between[0]:
        raise ScenarioError((*path, "between"), "the first of the two lists is empty")
    first, second = (network.hosts_named(names) for names in cut.between)
    for host in first & second:
        raise ScenarioError((*path, "between"), f"{network.hosts[host]!r} is on both sides")
    if not pairs_cut(cut, network):
        raise ScenarioError(
            (*path, "between"), "all hosts are in the first list, and nobody is left to cut them off from"
        )
    if cut.every_s is not None and cut.for_s >= cut.every_s:
        raise ScenarioError((*path, "every_s"), "it comes again before it has ended")
