"""What the kernel's counters say of the wire, whatever else is late."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from thinwire.forecast import Traffic
from thinwire.training.wire_meter import BESIDE_S, LONG_MEMORY_S, MEMORY_S, WireMeter

PEERS = (1, 2, 3)


class Links:
    """Counters of three links, filled a step at a time."""

    def __init__(self, meter: WireMeter) -> None:
        self.meter = meter
        self.now_s = 0.0
        self._bytes, self._busy_s = 0, 0.0
        meter.look(0.0, self._traffic(None))

    def step(
        self,
        num_bytes: int,
        busy_s: float,
        pace: float | None = None,
        step_s: float = 0.1,
        idle: Sequence[int] = (),
    ) -> float:
        """``num_bytes`` to each peer but the idle ones; what the meter says afterwards."""
        self.now_s += step_s
        self._bytes += num_bytes
        self._busy_s += busy_s
        self.meter.look(self.now_s, self._traffic(pace, idle))
        return self.meter.bytes_per_s

    def _traffic(self, pace: float | None, idle: Sequence[int] = ()) -> dict[int, Traffic]:
        return {
            peer: Traffic()
            if peer in idle
            else Traffic(delivered_bytes=self._bytes, unacknowledged_s=self._busy_s, pace_bytes_per_s=pace)
            for peer in PEERS
        }


def test_links_that_are_used_together_add_up() -> None:
    assert Links(WireMeter(0.0)).step(100_000, 0.05) == pytest.approx(6e6)


def test_a_ring_uses_one_link_and_gets_all_of_the_wire() -> None:
    assert Links(WireMeter(0.0)).step(300_000, 0.05, idle=(2, 3)) == pytest.approx(6e6)


def test_latency_is_no_bandwidth() -> None:
    assert Links(WireMeter(0.01)).step(100_000, 0.06) == pytest.approx(6e6)


def test_a_sender_that_is_held_up_now_and_then_does_not_make_the_wire_slow() -> None:
    links = Links(WireMeter(0.0))
    found = [links.step(100_000, 0.08 if step % 3 else 0.05) for step in range(20)]
    assert found[3:] == pytest.approx([6e6] * 17)


def test_where_cores_make_everybody_late_the_pace_tells_how_fast_the_wire_is() -> None:
    """As in the lab without limits, on cores that are wanted twice: busy for 80 ms, and gigabytes a second."""
    links = Links(WireMeter(0.0))
    found = [links.step(3_300_000, 0.08, pace) for pace in (900e6, 50e6, 4000e6, 2000e6, 70e6, 1500e6)]
    assert found[:3] == [0.0] * 3  # two kinds of paces, and too few of them
    assert found[-1] > 2e9


def test_a_guess_alone_is_not_told_where_the_wire_may_be_faster() -> None:
    """As in the lab without limits, where the group's speed at the start was that of busy cores."""
    links = Links(WireMeter(0.0, guess_bytes_per_s=120e6))
    found = [links.step(3_300_000, 0.08, pace) for pace in (900e6, 50e6, 4000e6, 2000e6, 70e6, 1500e6)]
    assert found[:3] == [0.0] * 3
    assert found[-1] > 2e9


def test_one_burst_that_a_shaper_let_pass_is_no_fast_wire() -> None:
    links = Links(WireMeter(0.0))
    found = [links.step(400_000, 0.1, pace) for pace in (4e6, 3.9e6, 2000e6, 4.1e6, 3.8e6, 3.9e6)]
    assert found == pytest.approx([12e6] * 6)


def test_a_slower_wire_is_seen_after_one_long_step() -> None:
    links = Links(WireMeter(0.0))
    for _ in range(10):
        links.step(3_300_000, 0.08, 41e6)
    assert links.step(3_300_000, 1.6, 2.1e6, step_s=1.7) == pytest.approx(6.2e6, rel=0.02)


def test_short_steps_follow_a_wire_that_is_the_limit_within_the_memory() -> None:
    links = Links(WireMeter(0.0))
    for step in range(10):
        links.step(100_000, 0.05, 2e6 + step)
    for step in range(int(MEMORY_S / 0.1) + 1):
        found = links.step(100_000, 0.09, 1.1e6 + step)
    assert found == pytest.approx(100_000 * 3 / (0.09 - BESIDE_S))


def test_a_wire_that_may_not_be_the_limit_is_not_called_slower_so_soon() -> None:
    """Small transfers on full cores: nothing waits in the kernel, and what is sent piece by piece takes long."""
    links = Links(WireMeter(0.0))
    links.step(100_000, 0.05, 2e6)
    found = [links.step(30_000, 0.06) for _ in range(int(LONG_MEMORY_S / 0.1) + 1)]
    assert found[: int(LONG_MEMORY_S / 0.1) - 2] == pytest.approx([6e6] * (int(LONG_MEMORY_S / 0.1) - 2))
    assert found[-1] == pytest.approx(30_000 * 3 / (0.06 - BESIDE_S))


@pytest.mark.parametrize("mbit", [9.56, 95.6])
def test_small_transfers_that_now_and_then_wait_for_an_acknowledgement_leave_the_wire_as_it_is(
    mbit: float,
) -> None:
    """As in the lab with factors of 4 and 16 columns: up to 70 ms more than the bytes take, in ticks of 4 ms."""
    rate, generator = mbit * 1e6 / 8, np.random.default_rng(0)
    links = Links(WireMeter(0.001, guess_bytes_per_s=0.96 * rate))
    num_bytes = 20_400 if mbit < 10 else 71_600
    found = []
    for _ in range(200):
        beside_s = generator.exponential(0.008) + generator.choice([0.0, 0.0, 0.0, 0.04])
        busy_s = 0.004 * round((3 * num_bytes / rate + beside_s) / 0.004 + generator.uniform(-0.5, 0.5))
        pace = rate * generator.uniform(0.2, 1.0) if generator.random() < 0.1 else 0.0
        found.append(links.step(num_bytes, busy_s, pace or None, step_s=0.13))
    assert np.median(found) == pytest.approx(rate, rel=0.1)
    assert np.mean(np.abs(np.array(found) / rate - 1) < 0.1) > 0.9


def test_looks_show_a_wire_that_small_steps_do_not() -> None:
    """As counted in the lab on the way from 90 to 165 Mbit/s, with factors of 8 columns; two looks are among them."""
    # Kilobytes to each peer / milliseconds of the longest link.
    text = """187/40 37/12 37/16 37/12 38/48 37/12 37/28 37/12 38/20 37/16
        178/28 38/28 37/32 37/16 37/16 38/12 37/28 37/20 38/24 37/24
        177/24 38/12 37/8 37/12 37/8 38/8 37/8 37/16"""
    counted = [(int(each.split("/")[0]), int(each.split("/")[1])) for each in text.split()]

    def believed(steps: Sequence[tuple[int, int]]) -> float:
        links = Links(WireMeter(0.001, guess_bytes_per_s=90 * 125e3))
        return [links.step(1000 * kilobytes, milliseconds / 1000) for kilobytes, milliseconds in steps][
            -1
        ] / 125e3

    assert believed([step for step in counted if step[0] < 40]) < 0.65 * 158
    assert believed(counted) == pytest.approx(158, rel=0.2)


def test_what_was_believed_before_gives_way_to_transfers_that_take_long() -> None:
    links = Links(WireMeter(0.001, guess_bytes_per_s=12e6))
    assert links.step(800_000, 0.4, 2e6) == pytest.approx(6e6, rel=0.04)


def test_what_was_believed_before_gives_way_to_more_than_it_allows() -> None:
    links = Links(WireMeter(0.001, guess_bytes_per_s=1e6))
    assert links.step(400_000, 0.2, 2e6) == pytest.approx(6e6, rel=0.03)


def test_control_messages_and_links_that_nobody_counts_say_nothing() -> None:
    links = Links(WireMeter(0.0))
    assert links.step(1000, 0.05) == 0.0
    assert links.step(10_000_000, 0.0) == 0.0
    assert not links.meter.is_counted
