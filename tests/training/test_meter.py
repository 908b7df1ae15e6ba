"""What the meter makes of the times it is told."""

from __future__ import annotations

import pytest

from thinwire.training.meter import Measurement, Meter


def told(
    meter: Meter, steps: int, *, rate: float, sizes: tuple[int, ...] = (100, 200), start_s: float = 0.0
) -> float:
    """Steps of a second: buckets ready at 0 and 0.1 s, each travelling at ``rate`` after the one before."""
    now_s = start_s
    for _ in range(steps):
        meter.begin_step(now_s)
        free_s = now_s
        for i, size in enumerate(sizes):
            begin_s = now_s + 0.1 * i
            transfer = meter.begin_transfer(size, begin_s, num_bytes=size)
            free_s = max(free_s, begin_s) + size / rate
            meter.end_transfer(transfer, free_s)
        now_s += 1.0
    return now_s


def test_nothing_is_said_before_two_steps() -> None:
    meter = Meter(0.0)
    assert meter.measurement() == Measurement()
    told(meter, 1, rate=1000.0)
    assert meter.measurement() == Measurement()


def test_rate_ready_times_and_exposure() -> None:
    meter = Meter(0.0)
    told(meter, 4, rate=1000.0)
    found = meter.measurement()
    assert found.sizes == (100, 200)
    assert found.ready_s == pytest.approx((0.0, 0.1))
    assert found.bandwidth_bytes_per_s == pytest.approx(1000.0)
    assert found.exposed_s == pytest.approx(0.2)
    assert found.step_s == pytest.approx(0.8)


def test_a_slower_wire_is_seen_within_two_seconds() -> None:
    meter = Meter(0.0)
    now_s = told(meter, 10, rate=10_000.0)
    told(meter, 3, rate=500.0, start_s=now_s)
    assert meter.measurement().bandwidth_bytes_per_s == pytest.approx(500.0)


def test_a_late_rank_now_and_then_does_not_look_like_a_slow_wire() -> None:
    meter = Meter(0.0)
    for step in range(8):
        meter.begin_step(step * 0.2)
        transfer = meter.begin_transfer(100, step * 0.2, num_bytes=100)
        meter.end_transfer(transfer, step * 0.2 + (0.15 if step % 2 else 0.01))
    assert meter.measurement().bandwidth_bytes_per_s == pytest.approx(10_000.0)


def test_a_new_layout_starts_afresh() -> None:
    meter = Meter(0.0)
    now_s = told(meter, 3, rate=1000.0, sizes=(300,))
    told(meter, 3, rate=1000.0, start_s=now_s)
    assert meter.measurement().sizes == (100, 200)


def test_latency_is_not_the_wires_fault() -> None:
    meter = Meter(latency_s=0.1)
    for step in range(3):
        meter.begin_step(float(step))
        transfer = meter.begin_transfer(100, float(step), num_bytes=100)
        meter.end_transfer(transfer, step + 0.2)
    assert meter.measurement().bandwidth_bytes_per_s == pytest.approx(1000.0)


def test_a_step_whose_transfers_have_not_ended_is_left_out() -> None:
    meter = Meter(0.0)
    now_s = told(meter, 3, rate=1000.0)
    meter.begin_step(now_s)
    meter.begin_transfer(100, now_s, num_bytes=100)
    meter.begin_step(now_s + 1)
    assert meter.measurement().sizes == (100, 200)
