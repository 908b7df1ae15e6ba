"""Faults are values: a ``Rule`` judges what passes through a simulated network.

A rule is asked at two places. ``judge_frame``, when a frame is about to leave: pass, delay, hold, or break
the connection. ``judge_event``, when an endpoint is about to send or to receive a frame, which is its k-th
event: let it live, stop it (a stopped process: everything sent to it waits), or kill it. The first rule, in
order of installation, that does not let pass has its way. Rules hold no state, so one value can be used in
many runs.

The network is TCP's: it may delay, but does not lose, repeat or alter single frames; what would, breaks a
link.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from thinwire.protocol.frame import Header


class Flight(NamedTuple):
    """A frame about to leave: from endpoint to endpoint (their indices), as which event of the source, when.

    No header, and event 0: the news that the connection has ended.
    """

    source: int
    target: int
    event: int
    header: Header | None
    now_s: float


@dataclass(frozen=True, slots=True)
class Pass:
    """No objection; arrives ``delay_s`` later than it would."""

    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Hold:
    """The frame, and all that follow it on its lane, wait until the rule is removed."""


@dataclass(frozen=True, slots=True)
class Break:
    """The connection breaks; what is under way is lost."""

    reason: str = "connection reset"


Verdict = Pass | Hold | Break
PASS = Pass()


class Fate(enum.Enum):
    """What becomes of an endpoint at one of its events."""

    LIVE = enum.auto()
    STOP = enum.auto()
    DIE = enum.auto()


class Rule:
    """Lets everything pass: override what you want otherwise."""

    def judge_frame(self, flight: Flight) -> Verdict:
        return PASS

    def judge_event(self, endpoint: int, event: int) -> Fate:
        return Fate.LIVE


@dataclass(frozen=True)
class Kill(Rule):
    """The endpoint dies just before its ``event``-th event (from 1)."""

    endpoint: int
    event: int

    def judge_event(self, endpoint: int, event: int) -> Fate:
        return Fate.DIE if (endpoint, event) == (self.endpoint, self.event) else Fate.LIVE


@dataclass(frozen=True)
class Silence(Rule):
    """The endpoint stops just before its ``event``-th event (from 1) and says nothing more."""

    endpoint: int
    event: int

    def judge_event(self, endpoint: int, event: int) -> Fate:
        return Fate.STOP if (endpoint, event) == (self.endpoint, self.event) else Fate.LIVE


@dataclass(frozen=True)
class PartitionOneWay(Rule):
    """Nothing that leaves ``sources`` gets to ``targets``: a pulled cable, so nobody is told."""

    sources: Collection[int]
    targets: Collection[int]

    def judge_frame(self, flight: Flight) -> Verdict:
        return Hold() if flight.source in self.sources and flight.target in self.targets else PASS


@dataclass(frozen=True)
class Partition(Rule):
    """Nothing passes between the two sides."""

    one: Collection[int]
    other: Collection[int]

    def judge_frame(self, flight: Flight) -> Verdict:
        sides = (flight.source in self.one, flight.target in self.other)
        mirrored = (flight.source in self.other, flight.target in self.one)
        return Hold() if all(sides) or all(mirrored) else PASS


@dataclass(frozen=True)
class Delay(Rule):
    """Frames from ``source`` to ``target`` take ``delay_s`` longer."""

    source: int
    target: int
    delay_s: float

    def judge_frame(self, flight: Flight) -> Verdict:
        return Pass(self.delay_s) if (flight.source, flight.target) == (self.source, self.target) else PASS


@dataclass(frozen=True)
class Reset(Rule):
    """The connection breaks over which ``source`` would send a frame as its ``event``-th event (from 1)."""

    source: int
    event: int

    def judge_frame(self, flight: Flight) -> Verdict:
        return Break() if (flight.source, flight.event) == (self.source, self.event) else PASS


def random_fault(rng: np.random.Generator, num_endpoints: int, num_events: int) -> Rule:
    """Somebody dies, falls silent, is cut off or loses a connection: at coordinates drawn from ``rng``.

    ``num_events`` is how many events an endpoint has when all goes well.
    """
    endpoint, event = int(rng.integers(num_endpoints)), int(rng.integers(num_events)) + 1
    others = [other for other in range(num_endpoints) if other != endpoint]
    faults: tuple[Rule, ...] = (
        Kill(endpoint, event),
        Silence(endpoint, event),
        Reset(endpoint, event),
        Partition([endpoint], others),
    )
    return faults[rng.integers(len(faults))]
