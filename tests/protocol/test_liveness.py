from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinwire.protocol.liveness import Liveness
from thinwire.sim import VirtualClock


class Watcher:
    """A process with a Liveness, driven by a virtual clock; ``is_stopped`` keeps it from polling."""

    def __init__(self, clock: VirtualClock, limit_s: float = 10.0) -> None:
        self.clock = clock
        self.liveness = Liveness(limit_s)
        self.lost: list[tuple[str, float, float]] = []
        self.send_heartbeat: Callable[[str], object] = lambda peer: None
        self.is_stopped = False

    def poll(self) -> None:
        if self.is_stopped:
            return
        now_s = self.clock.now_s()
        due = self.liveness.poll(now_s)
        self.lost += [(peer, silence_s, now_s) for peer, silence_s in due.silent]
        for peer in due.heartbeats:
            self.send_heartbeat(peer)
        if due.wake_s < math.inf:
            self.clock.call_at(due.wake_s, self.poll)

    def resume(self) -> None:
        self.is_stopped = False
        self.poll()


def run_to(clock: VirtualClock, end_s: float) -> None:
    while (next_s := clock.next_s()) is not None and next_s <= end_s:
        clock.step()


def pair(clock: VirtualClock) -> tuple[Watcher, Watcher]:
    """Two processes that send each other heartbeats which arrive 0.1 s later, if the receiver runs."""
    a, b = Watcher(clock), Watcher(clock)

    def wire(source: Watcher, name: str, target: Watcher) -> None:
        def arrive() -> None:
            if not target.is_stopped:
                target.liveness.on_received(name, clock.now_s())

        source.send_heartbeat = lambda peer: clock.call_later(0.1, arrive)

    wire(a, "a", b)
    wire(b, "b", a)
    a.liveness.watch("b", 0.0)
    b.liveness.watch("a", 0.0)
    a.poll()
    b.poll()
    return a, b


def test_two_that_send_heartbeats_never_lose_each_other() -> None:
    clock = VirtualClock()
    a, b = pair(clock)
    run_to(clock, 1000.0)
    assert (a.lost, b.lost) == ([], [])


def test_a_peer_that_falls_silent_is_lost_at_the_limit_once() -> None:
    clock = VirtualClock()
    a, b = pair(clock)
    run_to(clock, 20.0)
    b.is_stopped = True
    run_to(clock, 100.0)
    assert a.lost == [("b", pytest.approx(10.0), pytest.approx(30.1))]


@given(stopped_at_s=st.floats(0, 30), pause_s=st.floats(0.0, 10_000.0))
def test_our_own_pause_condemns_nobody(stopped_at_s: float, pause_s: float) -> None:
    """A process is stopped, for however long, and resumed: its peer still lives, so it must not be given up."""
    clock = VirtualClock()
    stopped, peer = Watcher(clock), "b"
    stopped.liveness.watch(peer, 0.0)

    def speak() -> None:
        if not stopped.is_stopped:
            stopped.liveness.on_received(peer, clock.now_s())
        clock.call_later(2.5, speak)

    speak()
    stopped.poll()
    run_to(clock, stopped_at_s)
    stopped.is_stopped = True
    run_to(clock, stopped_at_s + pause_s)
    clock.call_at(stopped_at_s + pause_s, stopped.resume)
    run_to(clock, stopped_at_s + pause_s + 100.0)
    assert stopped.lost == []


def test_a_peer_that_died_during_our_pause_is_lost_after_it() -> None:
    clock = VirtualClock()
    a = Watcher(clock)
    a.liveness.watch("b", 0.0)
    a.poll()
    run_to(clock, 1.0)
    a.is_stopped = True
    run_to(clock, 60.0)
    clock.call_at(60.0, a.resume)
    run_to(clock, 200.0)
    assert a.lost == [("b", pytest.approx(10.0), pytest.approx(67.5))]


def test_a_process_that_is_late_again_and_again_still_notices_a_dead_peer() -> None:
    liveness, now_s, lost = Liveness(10.0), 0.0, list[tuple[str, float]]()
    liveness.watch("b", now_s)
    polls = 0
    while not lost and polls < 100:
        due = liveness.poll(now_s)
        lost += due.silent
        now_s = due.wake_s + 3.0
        polls += 1
    assert [peer for peer, _ in lost] == ["b"]
    assert polls < 10


def test_heartbeats_go_only_where_nothing_else_was_sent() -> None:
    liveness = Liveness(10.0)
    for peer in ("busy", "idle"):
        liveness.watch(peer, 0.0)
    liveness.on_sent("busy", 2.0)
    due = liveness.poll(2.5)
    assert (due.heartbeats, due.silent, due.wake_s) == (["idle"], [], 4.5)


def test_a_heartbeat_is_asked_for_once_an_interval() -> None:
    liveness = Liveness(10.0)
    liveness.watch("b", 0.0)
    assert liveness.poll(2.5).heartbeats == ["b"]
    assert liveness.poll(2.6).heartbeats == []


def test_old_news_does_not_turn_the_clock_back() -> None:
    liveness = Liveness(10.0)
    liveness.watch("b", 0.0)
    liveness.on_received("b", 5.0)
    liveness.on_received("b", 1.0)
    now_s, silent = 0.0, list[tuple[str, float]]()
    while not silent:
        due = liveness.poll(now_s)
        silent, now_s = due.silent, due.wake_s
    assert silent == [("b", 10.0)]


def test_the_forgotten_are_never_reported() -> None:
    liveness = Liveness(10.0)
    liveness.watch("b", 0.0)
    liveness.poll(0.0)
    liveness.forget("b")
    liveness.forget("b")
    liveness.on_received("b", 1.0)
    liveness.on_sent("b", 1.0)
    assert liveness.poll(2.0) == ([], [], math.inf)


def test_nobody_watched_means_no_waking() -> None:
    assert Liveness(10.0).poll(5.0).wake_s == math.inf
