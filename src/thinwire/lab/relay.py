"""The relay: reads frames from the fabric's ports, holds each as long as its wires take, and sends it on or loses it.

A loop that Numba compiles and that needs no lock of Python's: packet sockets, a heap of frames by release time, and
``ppoll``. Super-packets of up to 64 kB pass whole, with the header by which the kernel knows how to cut them
(``PACKET_VNET_HDR``), so that a gigabit a second is some thousand frames a second.

What the wires do is in ``wires``, one row a pipe, which may be written to while the loop runs:

* Delay: a mean plus jitter. Jitter is a smooth Gaussian process in time, as the waiting in other people's queues is:
  between independent draws ``DRAW_EVERY`` standard deviations apart it moves on a quarter circle, which keeps its
  variance at all times. It changes too slowly for frames to overtake each other; where they still would, the later
  one waits.
* Loss: the channel of Gilbert and Elliott with its two states, one step a frame. Where frames can be lost, hosts
  make no super-packets (see ``build``), so that each frame has its own fate.

Not here: rates and queues (``rates``), and which ports and pipes there are (``network``). This is the one loop of
thinwire that reads the time by itself, because no Python runs in it.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import socket
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from thinwire.lab.namespaces import wake_on_time
from thinwire.lab.network import Network, Pipe

DELAY_S, JITTER_S, LOSS, BURST_LOSS, TO_BAD, TO_GOOD = range(6)  # columns of ``wires``
_COLUMNS = {"delay_s": DELAY_S, "jitter_s": JITTER_S, "loss": LOSS}
FORWARDED, LOST, REFUSED, OVERFLOWED = range(
    4
)  # places of ``counts``: lost on purpose, refused by a full queue
DRAW_EVERY = 6.0
MAX_HELD_BYTES = 1 << 30

_VNET_HEADER_BYTES = 10
_MAX_FRAME_BYTES = _VNET_HEADER_BYTES + 18 + 65535
_FIRST_BYTE, _HOST_BYTE = _VNET_HEADER_BYTES, _VNET_HEADER_BYTES + 5  # of the destination's hardware address
_UNICAST = 0x02
_MAX_STAGES = 3
_MAX_WAIT_S = 0.1
_FRAMES_A_TURN = 64
_SOCKET_BUFFER_BYTES = 64 << 20

_SOL_PACKET, _PACKET_VNET_HDR, _ETH_P_IP = 263, 15, 0x0800
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_MSG_DONTWAIT, _POLLIN, _CLOCK_MONOTONIC = 0x40, 1, 1

_recv: Any = types.ExternalFunction("recv", types.intp(types.int32, types.uintp, types.uintp, types.int32))
_send: Any = types.ExternalFunction("send", types.intp(types.int32, types.uintp, types.uintp, types.int32))
_ppoll: Any = types.ExternalFunction("ppoll", types.int32(types.uintp, types.uintp, types.uintp, types.uintp))
_clock_gettime: Any = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.uintp))


class Relay:
    """The ports of a fabric, joined by delayed and lossy wires. Opens its sockets in the calling thread's network
    namespace.

    Attributes:
        wires: [pipe, column] what each pipe does.
        counts: frames forwarded, lost on purpose, refused by a queue, and dropped because too many were held.
    """

    def __init__(self, network: Network, ports: Sequence[str], seed: int) -> None:
        self.wires = np.array([wire_of(pipe) for pipe in network.pipes])
        self.counts = np.zeros(4, np.int64)
        self._sockets = [_open(port) for port in ports]
        self._route, self._stages = _tables(network, ports)
        self._generator = np.random.default_rng(seed)

    def set(self, pipe: int, what: str, value: float) -> None:
        """Let frames that arrive from now on meet another ``delay_s``, ``jitter_s`` or ``loss``."""
        self.wires[pipe, _COLUMNS[what]] = value

    def start(self) -> None:
        """Forward frames in a thread of its own, until the process ends."""
        self._forward(is_running=False)  # compiles, so that no frame waits for the compiler
        threading.Thread(target=self._run, name="lab-relay", daemon=True).start()

    def _run(self) -> None:
        wake_on_time()
        with contextlib.suppress(
            PermissionError
        ):  # an ordinary thread is late when the machine is busy, no more
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        self._forward(is_running=True)

    def _forward(self, *, is_running: bool) -> None:
        forward(
            np.array([port.fileno() for port in self._sockets], np.int32),
            self._route,
            self._stages,
            self.wires,
            self._generator,
            np.array([is_running]),
            self.counts,
        )


def wire_of(pipe: Pipe) -> list[float]:
    """A pipe's row of ``wires``."""
    row = [0.0] * 6
    row[DELAY_S], row[JITTER_S], row[LOSS] = pipe.delay_s, pipe.jitter_s, pipe.loss
    if burst := pipe.burst_loss:
        row[BURST_LOSS] = burst.loss
        row[TO_GOOD] = 1 / burst.packets
        row[TO_BAD] = row[TO_GOOD] * burst.share / (1 - burst.share)
    return row


def _open(port: str) -> socket.socket:
    """A packet socket that gives and takes IPv4 frames of one device, each behind its virtio header."""
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    for option in (_SO_RCVBUFFORCE, _SO_SNDBUFFORCE):
        with contextlib.suppress(PermissionError):  # an older kernel asks for real root: shorter buffers then
            packets.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER_BYTES)
    packets.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    packets.bind((port, _ETH_P_IP))
    return packets


def _tables(network: Network, ports: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Where a frame goes on, and what happens to it first.

    Returns:
        route: [port it came from, destination host] -> port, or -1.
        stages: [port it came from, destination host, place] -> pipe, or -1.
    """
    number = {port: index for index, port in enumerate(ports)}
    route = np.full((len(ports), network.num_hosts), -1, np.int32)
    stages = np.full((len(ports), network.num_hosts, _MAX_STAGES), -1, np.int32)

    def enter(port: int, site: int, destination: int, passed: list[int]) -> None:
        home = network.site_of[destination]
        if site == home:
            route[port, destination] = number[f"host{destination}"]
            passed = [*passed, network.downlink(destination)]
        else:
            following = network.site_pipes[site, network.next_site[site, home]]
            route[port, destination] = number[f"pipe{following}"]
        active = [pipe for pipe in passed if network.pipes[pipe].needs_relay]
        stages[port, destination, : len(active)] = active

    for destination in range(network.num_hosts):
        for host, site in enumerate(network.site_of):
            if host != destination:
                link = network.links.get((host, destination))
                passed = [network.uplink(host), *([] if link is None else [link])]
                enter(number[f"host{host}"], site, destination, passed)
        for (first, second), pipe in network.site_pipes.items():
            far_end = number[f"pipe{network.site_pipes[second, first]}"]
            enter(far_end, second, destination, [pipe])
    return route, stages


@njit(nogil=True, cache=True)
def forward(descriptors, route, stages, wires, generator, is_running, counts):  # type: ignore[no-untyped-def]
    """Move frames between sockets while ``is_running[0]``.

    Args:
        descriptors: [port] sockets that keep frame boundaries, each frame behind a virtio header.
        route, stages: see ``_tables``.
        wires: [pipe, column], read anew for each frame.
        generator: of losses and jitter.
        counts: [place], added to.
    """
    num_ports, num_hosts = route.shape
    frame = np.empty(_MAX_FRAME_BYTES, np.uint8)
    polled = np.zeros(
        (num_ports, 2), np.int32
    )  # struct pollfd: the descriptor; what is asked, and above it what is
    polled[:, 0] = descriptors
    timespec = np.zeros(2, np.int64)
    last_release_s = np.zeros((num_ports, num_hosts))
    is_bad = np.zeros(len(wires), np.bool_)
    jitter = np.zeros((len(wires), 3))

    nothing = np.empty(0, np.uint8)
    due = [(0.0, 0, 0)]  # a heap of (release time, number of the frame, slot)
    due.pop()
    held = [nothing]  # [slot] the frame ...
    held_for = [0]  # ... and the port it will leave by
    free = [0]
    num_frames = 0
    held_bytes = 0

    while is_running[0]:
        now_s = _now_s(timespec)
        while len(due) > 0 and due[0][0] <= now_s:
            slot = heapq.heappop(due)[2]
            kept = held[slot]
            _pass_on(descriptors[held_for[slot]], kept, len(kept), counts)
            held_bytes -= len(kept)
            held[slot] = nothing
            free.append(slot)
            now_s = _now_s(timespec)

        wait_s = min(_MAX_WAIT_S, due[0][0] - now_s) if len(due) > 0 else _MAX_WAIT_S
        timespec[0], timespec[1] = 0, int(wait_s * 1e9)
        polled[:, 1] = _POLLIN
        if _ppoll(polled.ctypes.data, num_ports, timespec.ctypes.data, 0) <= 0:
            continue

        for port in range(num_ports):
            if polled[port, 1] >> 16 == 0:
                continue
            for _ in range(_FRAMES_A_TURN):
                length = _recv(descriptors[port], frame.ctypes.data, frame.size, _MSG_DONTWAIT)
                if length <= _HOST_BYTE:
                    break
                host = frame[_HOST_BYTE]
                if frame[_FIRST_BYTE] != _UNICAST or host >= num_hosts or route[port, host] < 0:
                    continue
                if stages[port, host, 0] < 0:
                    _pass_on(descriptors[route[port, host]], frame, length, counts)
                    continue
                release_s = _now_s(timespec)
                is_lost = False
                for pipe in stages[port, host]:
                    if pipe >= 0:
                        is_lost |= meets_loss(wires[pipe], is_bad, pipe, generator)
                        release_s += delay_of(wires[pipe], jitter[pipe], release_s, generator)
                if is_lost or held_bytes + length > MAX_HELD_BYTES:
                    counts[LOST if is_lost else OVERFLOWED] += 1
                    continue
                release_s = max(release_s, last_release_s[port, host])
                last_release_s[port, host] = release_s
                if len(free) == 0:
                    free.append(len(held))
                    held.append(nothing)
                    held_for.append(0)
                slot = free.pop()
                held[slot] = frame[:length].copy()
                held_for[slot] = route[port, host]
                held_bytes += length
                heapq.heappush(due, (release_s, num_frames, slot))
                num_frames += 1


@njit(nogil=True, cache=True)
def _now_s(timespec):  # type: ignore[no-untyped-def]
    _clock_gettime(_CLOCK_MONOTONIC, timespec.ctypes.data)
    return timespec[0] + timespec[1] * 1e-9


@njit(nogil=True, cache=True)
def _pass_on(descriptor, frame, length, counts):  # type: ignore[no-untyped-def]
    is_sent = _send(descriptor, frame.ctypes.data, length, _MSG_DONTWAIT) == length
    counts[FORWARDED if is_sent else REFUSED] += 1


@njit(nogil=True, cache=True)
def meets_loss(wire, is_bad, pipe, generator):  # type: ignore[no-untyped-def]
    """One step of the channel."""
    if wire[TO_BAD] > 0:
        if generator.random() < wire[TO_GOOD if is_bad[pipe] else TO_BAD]:
            is_bad[pipe] = not is_bad[pipe]
        if is_bad[pipe]:
            return generator.random() < wire[BURST_LOSS]
    return wire[LOSS] > 0 and generator.random() < wire[LOSS]


@njit(nogil=True, cache=True)
def delay_of(wire, jitter, now_s, generator):  # type: ignore[no-untyped-def]
    """The delay of a frame that arrives now. ``jitter``: the draw it comes from, the one it goes to, and since when."""
    if wire[JITTER_S] == 0:
        return wire[DELAY_S]
    span_s = DRAW_EVERY * wire[JITTER_S]
    if now_s - jitter[2] >= span_s:
        is_next = now_s - jitter[2] < 2 * span_s
        jitter[0] = jitter[1] if is_next else generator.normal()
        jitter[1] = generator.normal()
        jitter[2] = jitter[2] + span_s if is_next else now_s
    angle = (now_s - jitter[2]) / span_s * (np.pi / 2)
    return max(0.0, wire[DELAY_S] + wire[JITTER_S] * (np.cos(angle) * jitter[0] + np.sin(angle) * jitter[1]))
