"""The relay's channel in virtual time, and its loop over socket pairs that stand for ports."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from thinwire.lab.network import Pipe
from thinwire.lab.relay import FORWARDED, LOST, delay_of, forward, meets_loss, wire_of
from thinwire.lab.scenario import BurstLoss

NUM_FRAMES = 50_000


def channel(pipe: Pipe, seed: int) -> np.ndarray:
    """Which of ``NUM_FRAMES`` frames are lost."""
    wire, is_bad, generator = np.array(wire_of(pipe)), np.zeros(1, np.bool_), np.random.default_rng(seed)
    return np.array([meets_loss(wire, is_bad, 0, generator) for _ in range(NUM_FRAMES)])


def test_random_loss_has_the_rate_asked_for_and_no_memory() -> None:
    lost = channel(Pipe(name="", loss=0.02), seed=1)
    assert lost.mean() == pytest.approx(0.02, rel=0.05)
    assert lost[1:][lost[:-1]].mean() == pytest.approx(0.02, abs=0.005)


def test_bursts_have_the_share_and_the_length_asked_for() -> None:
    lost = channel(Pipe(name="", burst_loss=BurstLoss(share=0.05, packets=8)), seed=2)
    num_bursts = np.count_nonzero(lost[1:] & ~lost[:-1])
    assert lost.mean() == pytest.approx(0.05, rel=0.1)
    assert lost.sum() / num_bursts == pytest.approx(8, rel=0.1)


def test_both_states_lose_their_part() -> None:
    pipe = Pipe(name="", loss=0.01, burst_loss=BurstLoss(share=0.1, packets=10, loss=0.5))
    assert channel(pipe, seed=3).mean() == pytest.approx(0.9 * 0.01 + 0.1 * 0.5, rel=0.1)


@pytest.mark.parametrize("spacing_s", [0.0001, 0.001, 0.05])
def test_jitter_has_the_mean_and_the_deviation_asked_for(spacing_s: float) -> None:
    wire, generator = np.array(wire_of(Pipe(name="", delay_s=0.02, jitter_s=0.004))), np.random.default_rng(4)
    jitter = np.zeros(3)
    times = np.arange(NUM_FRAMES) * spacing_s + 1
    delays = np.array([delay_of(wire, jitter, now_s, generator) for now_s in times])
    assert delays.mean() == pytest.approx(0.02, rel=0.02)
    assert delays.std() == pytest.approx(0.004, rel=0.07)
    # Frames of one flow hardly ever catch up with each other, so keeping their order changes nothing.
    arrivals = times + delays
    assert np.abs(np.maximum.accumulate(arrivals) - arrivals).mean() < 1e-5


@contextmanager
def running(*wires: Pipe, seed: int = 0) -> Iterator[tuple[list[socket.socket], np.ndarray]]:
    """Two hosts, a port each: frames from port 0 to host 1 pass the wires, those the other way none."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    stages = np.full((2, 2, 3), -1, np.int32)
    stages[0, 1, : len(wires)] = range(len(wires))
    is_running, counts = np.array([True]), np.zeros(4, np.int64)
    thread = threading.Thread(
        target=forward,
        args=(
            np.array([port.fileno() for port, _ in pairs], np.int32),
            np.array([[-1, 1], [0, -1]], np.int32),
            stages,
            np.array([wire_of(wire) for wire in wires]),
            np.random.default_rng(seed),
            is_running,
            counts,
        ),
    )
    thread.start()
    try:
        yield [host for _, host in pairs], counts
    finally:
        is_running[0] = False
        thread.join()
        for pair in pairs:
            for end in pair:
                end.close()


def frame(destination: int, payload: bytes) -> bytes:
    return bytes(10) + bytes([2, 0x74, 0x77, 0, 0, destination]) + payload


def test_frames_are_delayed_and_keep_their_order() -> None:
    with running(Pipe(name="", delay_s=0.02), Pipe(name="", delay_s=0.01, jitter_s=0.003)) as (hosts, counts):
        hosts[1].send(frame(0, b"back"))
        assert hosts[0].recv(100) == frame(0, b"back")  # also: the loop is compiled and runs
        begin_s = time.monotonic()
        for number in range(100):
            hosts[0].send(frame(1, bytes([number])))
        assert [hosts[1].recv(100)[-1] for _ in range(100)] == list(range(100))
        assert time.monotonic() - begin_s > 0.015
    assert counts[FORWARDED] == 101


def test_frames_to_nobody_go_nowhere() -> None:
    with running(Pipe(name="")) as (hosts, counts):
        for destination in (0, 7, 255):
            hosts[0].send(frame(destination, b"lost"))
        hosts[0].send(b"short")
        hosts[0].send(b"\xff" * 64)
        hosts[0].send(frame(1, b"found"))
        assert hosts[1].recv(100) == frame(1, b"found")
    assert counts[FORWARDED] == 1


def test_lost_frames_are_counted() -> None:
    with running(Pipe(name="", loss=0.5), seed=5) as (hosts, counts):
        for number in range(200):
            hosts[0].send(frame(1, bytes([number])))
        for end in hosts:
            end.settimeout(5)
        while counts[FORWARDED] < 1 or counts[FORWARDED] + counts[LOST] < 200:
            time.sleep(0.001)
        assert 60 < counts[LOST] < 140
        assert len([hosts[1].recv(100) for _ in range(counts[FORWARDED])]) == 200 - counts[LOST]
