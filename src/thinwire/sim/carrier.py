"""How frames travel in virtual time: the carrier of a simulated network.

A directed link sends one frame after the other at its bandwidth. Each then flies for the latency, and some jitter, on
one of the link's lanes: frames on one lane arrive in order, on different lanes they may overtake. Rules judge what
passes (``faults``).

Not here: loss and congestion (a rule can delay), and bandwidth that several links share.
"""

from __future__ import annotations

import math
import threading
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import msgspec
import numpy as np

from thinwire.protocol.frame import HEADER_BYTES, Header, Kind
from thinwire.sim.clock import VirtualClock
from thinwire.sim.faults import PASS, Break, Fate, Flight, Hold, Pass, Rule, Verdict
from thinwire.transport.memory import MemoryLink, MemoryNetwork, MemoryTransport, Outgoing

_REMEMBERED_FRAMES = 8


class LinkProfile(msgspec.Struct, frozen=True, kw_only=True):
    """What a directed link does to frames.

    Attributes:
        latency_s: from leaving to arriving.
        bandwidth_bytes_per_s: at which frames, headers included, leave one after the other.
        jitter_s: added to the latency of each frame: uniform between 0 and this.
        lanes: frames on different lanes may overtake each other, if there is jitter.
    """

    latency_s: float = 0.0
    bandwidth_bytes_per_s: float = math.inf
    jitter_s: float = 0.0
    lanes: int = 1


class _Parcel(NamedTuple):
    """What travels on a lane: a frame, or (without a header) the news that the connection has ended.

    ``is_last`` if nothing may arrive after it, on whichever lane. ``hand_over`` is what its arrival does.
    """

    flight: Flight
    is_last: bool
    hand_over: Callable[[], None]


class _Lane:
    """One ordered stream of a link."""

    def __init__(self) -> None:
        self.last_arrival_s = 0.0
        self.held: deque[_Parcel] = deque()


class _Wire:
    """What the carrier knows of a directed link."""

    def __init__(self, profile: LinkProfile) -> None:
        self.profile = profile
        self.free_s = 0.0
        self.lanes = [_Lane() for _ in range(profile.lanes)]


class VirtualCarrier:
    """A ``Carrier`` that moves frames by timers of a virtual clock."""

    def __init__(
        self, network: MemoryNetwork, clock: VirtualClock, rng: np.random.Generator, profile: LinkProfile
    ) -> None:
        self.profiles: dict[tuple[int, int], LinkProfile] = {}
        self.rules: list[Rule] = []
        self.num_events: Counter[int] = Counter()
        self.stopped: dict[int, list[Callable[[], None]]] = {}
        self._network = network
        self._clock = clock
        self._rng = rng
        self._profile = profile
        self._wires: dict[MemoryLink, _Wire] = {}
        self._last_frames: deque[str] = deque(maxlen=_REMEMBERED_FRAMES)

    def ready(self, link: MemoryLink) -> None:
        begin = partial(self._when_running, link.source.index, partial(self._begin, link))
        self._clock.call_at(self._wire(link).free_s, begin)

    def after(self, link: MemoryLink, function: Callable[[], None]) -> None:
        source, target = link.source.index, link.target.index
        flight = Flight(source, target, 0, None, self._clock.now_s())
        self._dispatch(link, _Parcel(flight, True, partial(self._when_running, target, function)))

    def wait(self, done: threading.Event, timeout_s: float) -> None:
        limit_s = self._clock.now_s() + timeout_s
        while not done.is_set() and (next_s := self._clock.next_s()) is not None and next_s <= limit_s:
            self._clock.step()

    def close(self) -> None:
        """Nothing to do: without ``run`` nothing moves."""

    def resume(self, endpoint: int) -> None:
        for step in self.stopped.pop(endpoint, []):
            self._clock.call_later(0.0, step)

    def remove(self, rule: Rule) -> None:
        self.rules.remove(rule)
        for link, wire in list(self._wires.items()):
            for lane in wire.lanes:
                held, lane.held = lane.held, deque()
                for parcel in held:
                    self._admit(link, lane, parcel)

    def describe_stall(self, limit_s: float | None) -> str:
        """What a person needs who wonders why a run did not end."""
        held = [
            f"{len(lane.held)} from {link.source.index} to {link.target.index}"
            for link, wire in self._wires.items()
            for lane in wire.lanes
            if lane.held
        ]
        dead = [str(endpoint.index) for endpoint in self._network.endpoints if not endpoint.alive]
        what = "nothing is left to happen" if limit_s is None else f"the time limit of {limit_s} s has come"
        return (
            f"at {self._clock.now_s():.6f} s {what}, but not what the run waits for.\n"
            f"held frames: {', '.join(held) or 'none'}\n"
            f"stopped endpoints: {', '.join(map(str, sorted(self.stopped))) or 'none'}; "
            f"dead or closed: {', '.join(dead) or 'none'}\n"
            f"last to arrive:\n  " + "\n  ".join(self._last_frames or ["nothing"])
        )

    def _wire(self, link: MemoryLink) -> _Wire:
        wire = self._wires.get(link)
        if wire is None:
            profile = self.profiles.get((link.source.index, link.target.index), self._profile)
            wire = self._wires[link] = _Wire(profile)
        return wire

    def _begin(self, link: MemoryLink) -> None:
        """Put the next frame of the link on the wire, if there is one."""
        frame = link.take()
        if frame is not None:
            wire = self._wire(link)
            size_bytes = HEADER_BYTES + frame.header.length
            wire.free_s = self._clock.now_s() + size_bytes / wire.profile.bandwidth_bytes_per_s
            leave = partial(self._event, link.source, partial(self._leave, link, frame))
            self._clock.call_at(wire.free_s, leave)

    def _leave(self, link: MemoryLink, frame: Outgoing) -> None:
        """The frame has left its sender, who may use the memory again."""
        header, payload = frame.header, memoryview(b"".join(frame.payload))
        frame.sent()
        source, target = link.source.index, link.target.index
        flight = Flight(source, target, self.num_events[source], header, self._clock.now_s())
        arrive = partial(self._event, link.target, partial(self._deliver, link, header, payload))
        self._dispatch(link, _Parcel(flight, header.kind is Kind.GOODBYE, arrive))
        self.ready(link)

    def _deliver(self, link: MemoryLink, header: Header, payload: memoryview) -> None:
        self._last_frames.append(
            f"{self._clock.now_s():.6f} s, from {link.source.index} to {link.target.index}: {header}"
        )
        out, back = self._wire(link).profile, self._wire(link.reverse).profile
        size_bytes = HEADER_BYTES + header.length
        travel_s = size_bytes / out.bandwidth_bytes_per_s
        link.reverse.count_travel(size_bytes, travel_s, out.latency_s + back.latency_s)
        link.deliver(header, [payload])

    def _dispatch(self, link: MemoryLink, parcel: _Parcel) -> None:
        """Put a parcel on one of the lanes; the last one, behind what is held."""
        lanes = self._wire(link).lanes
        lane = lanes[self._rng.integers(len(lanes))]
        if parcel.is_last:
            lane = next((lane for lane in reversed(lanes) if lane.held), lane)
        self._admit(link, lane, parcel)

    def _admit(self, link: MemoryLink, lane: _Lane, parcel: _Parcel) -> None:
        verdict = self._judge(parcel.flight)
        if isinstance(verdict, Break):
            link.sever(verdict.reason)
        elif isinstance(verdict, Hold) or lane.held:
            lane.held.append(parcel)
        else:
            self._fly(link, lane, parcel, verdict)

    def _fly(self, link: MemoryLink, lane: _Lane, parcel: _Parcel, verdict: Pass) -> None:
        wire = self._wire(link)
        flight_s = wire.profile.latency_s + verdict.delay_s + wire.profile.jitter_s * self._rng.random()
        ahead = wire.lanes if parcel.is_last else [lane]
        lane.last_arrival_s = max(
            self._clock.now_s() + flight_s, *(before.last_arrival_s for before in ahead)
        )
        self._clock.call_at(lane.last_arrival_s, parcel.hand_over)

    def _judge(self, flight: Flight) -> Verdict:
        verdicts = (rule.judge_frame(flight) for rule in self.rules)
        return next((verdict for verdict in verdicts if verdict != PASS), PASS)

    def _event(self, endpoint: MemoryTransport, step: Callable[[], None]) -> None:
        """``step`` happens to a live endpoint, unless a rule has something worse in store."""
        index = endpoint.index
        if index in self.stopped:
            self.stopped[index].append(partial(self._event, endpoint, step))
        elif endpoint.alive:
            self.num_events[index] += 1
            fates = [rule.judge_event(index, self.num_events[index]) for rule in self.rules]
            match next((fate for fate in fates if fate is not Fate.LIVE), Fate.LIVE):
                case Fate.LIVE:
                    step()
                case Fate.STOP:
                    self.stopped[index] = [step]
                case Fate.DIE:
                    self._network.kill(index)

    def _when_running(self, endpoint: int, step: Callable[[], None]) -> None:
        """Do ``step`` now, or when the stopped endpoint is resumed."""
        if endpoint in self.stopped:
            self.stopped[endpoint].append(step)
        else:
            step()
