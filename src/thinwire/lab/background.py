"""Background traffic: datagrams at a steady rate from one host to another, whoever else wants the wire.

Not here: traffic that gives way, such as a TCP download; run that inside the lab like any other program.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading

from thinwire.clock import SYSTEM_CLOCK
from thinwire.lab.build import Fabric, address_of
from thinwire.lab.namespaces import network_namespace
from thinwire.lab.rates import FRAME_BYTES
from thinwire.lab.scenario import Background

_DISCARD_PORT = 9
_PAYLOAD_BYTES = 1472  # fills a frame
_MAX_SEGMENTS = 44  # of one send; the kernel cuts it
_BATCH_S = 0.002
_UDP_SEGMENT = 103


def start(background: Background, fabric: Fabric) -> None:
    """Send in a thread of its own until the process ends."""
    hosts = fabric.network.hosts
    source, destination = hosts.index(background.from_), hosts.index(background.to)
    with network_namespace(fabric.namespaces[destination]):
        sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sink.bind((address_of(destination), _DISCARD_PORT))  # never read: what does not fit is dropped
    with network_namespace(fabric.namespaces[source]):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, _PAYLOAD_BYTES)
    sender.setblocking(False)
    sender.connect((address_of(destination), _DISCARD_PORT))
    threading.Thread(
        target=_send, args=(background, sender, sink), name="lab-background", daemon=True
    ).start()


def _send(background: Background, sender: socket.socket, sink: socket.socket) -> None:
    """Send forever. Holds ``sink`` so that it stays open."""
    frames_per_s = background.rate_mbit * 1e6 / 8 / FRAME_BYTES
    frames = min(_MAX_SEGMENTS, max(1, int(frames_per_s * _BATCH_S)))
    batch = bytes(frames * _PAYLOAD_BYTES)
    turn_s = background.on_s + background.off_s if background.on_s and background.off_s else None
    sleep = threading.Event().wait
    start_s = SYSTEM_CLOCK.now_s()
    for number in itertools.count():
        sent_for_s = number * frames / frames_per_s  # as if it never were silent
        due_s = sent_for_s
        if turn_s is not None and background.on_s is not None:
            turns, within_s = divmod(sent_for_s, background.on_s)
            due_s = turns * turn_s + within_s
        if (wait_s := start_s + due_s - SYSTEM_CLOCK.now_s()) > 0:
            sleep(wait_s)
        with contextlib.suppress(OSError):  # a full queue drops, as it does to everybody
            sender.send(batch)
