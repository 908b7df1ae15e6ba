"""How faithful the lab is: what scenarios ask for against what packets meet, and what the emulation costs.

    python benchmarks/lab_fidelity.py [--json] [rate] [delay] [jitter] [loss] [speed] [cost]

Each row names what was asked, what was measured, the error and its bound; the exit status is 1 if a bound is broken.
``--json`` also writes the parts that were measured to ``benchmarks/results/lab_fidelity.json``, beside those that were
measured before, each with where and when; ``benchmarks/readme.py`` publishes them in the guide to the lab.
Delays are one-way and exact, because sender and receiver share the machine's clock. Rates count Ethernet frames, as
scenarios do: a full frame of 1514 bytes carries 1448 bytes of a TCP stream. Takes about four minutes.

The programs that run inside hosts are in this file too: ``tcp_source``, ``tcp_sink``, ``udp_source``, ``udp_sink``.
"""

from __future__ import annotations

import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from thinwire.cli.measurement import Surroundings
from thinwire.lab import Lab, Scenario
from thinwire.lab.scenario import Access, BurstLoss, Wire

RESULTS = Path(__file__).resolve().parent / "results" / "lab_fidelity.json"
FRAME_BYTES_PER_PAYLOAD_BYTE = 1514 / 1448
PORT = 5001
STAMP = struct.Struct("<Qd")  # the datagram's number, and when it was sent; from the sink: its delay
DATAGRAM_BYTES = 100
TIMESPEC = struct.Struct("qq")
SO_TIMESTAMPNS = 35


# Programs inside the hosts.


def tcp_sink(port: str, num_streams: str, warm_up_s: str, measure_s: str) -> None:
    """Accept streams and read them; print the bytes a second that arrived after the warm-up."""
    with socket.create_server(("", int(port))) as listener:
        print("ready", flush=True)
        connections = [listener.accept()[0] for _ in range(int(num_streams))]
    buffer = bytearray(1 << 20)

    def read_until(end_s: float) -> int:
        num_bytes = 0
        while (left_s := end_s - time.monotonic()) > 0:
            for connection in select.select(connections, [], [], left_s)[0]:
                num_bytes += connection.recv_into(buffer)
        return num_bytes

    begin_s = time.monotonic() + float(warm_up_s)
    read_until(begin_s)
    print(read_until(begin_s + float(measure_s)) / float(measure_s), flush=True)
    for connection in connections:
        connection.close()


def tcp_source(address: str, port: str) -> None:
    """Write until the other side has had enough."""
    payload = bytes(1 << 18)
    with socket.create_connection((address, int(port))) as connection:
        try:
            while True:
                connection.sendall(payload)
        except ConnectionError:
            return


def udp_sink(silence_s: str) -> None:
    """Read datagrams until none has come for so long; then write the number and the delay of each to stdout."""
    arrived = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        receiver.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)  # ours would be late whenever we are
        receiver.bind(("", PORT))
        print("ready", flush=True)
        try:
            while True:
                datagram, [(_, _, stamp)], _, _ = receiver.recvmsg(2048, socket.CMSG_SPACE(TIMESPEC.size))
                seconds, nanoseconds = TIMESPEC.unpack(stamp)
                number, sent_s = STAMP.unpack_from(datagram)
                arrived.append(STAMP.pack(number, seconds - sent_s + nanoseconds * 1e-9))
                receiver.settimeout(float(silence_s))
        except TimeoutError:
            pass
    sys.stdout.buffer.write(b"".join(arrived))


def udp_source(address: str, count: str, interval_s: str) -> None:
    """Send datagrams that say when they were sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect((address, PORT))
        start_s = time.monotonic()
        for number in range(int(count)):
            if (wait_s := start_s + number * float(interval_s) - time.monotonic()) > 0:
                time.sleep(wait_s)
            sender.send(STAMP.pack(number, time.time()).ljust(DATAGRAM_BYTES))


INSIDE = {program.__name__: program for program in (tcp_sink, tcp_source, udp_sink, udp_source)}


# Measurements, from outside.


def start(lab: Lab, host: str, program: str, *arguments: object) -> subprocess.Popen[bytes]:
    """Start one of the programs in a host; sinks are listening when this returns."""
    command = [sys.executable, str(Path(__file__).resolve()), "--inside", program, *map(str, arguments)]
    process = lab.popen(host, command, stdout=subprocess.PIPE)
    if program.endswith("sink"):
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    return process


def tcp_rates(
    lab: Lab,
    flows: Sequence[tuple[str, str]],
    *,
    num_streams: int = 1,
    warm_up_s: float = 1.0,
    measure_s: float = 3.0,
) -> list[float]:
    """The Mbit/s of frames that each flow (source, destination) gets while all flow at once."""
    ports = range(PORT, PORT + len(flows))
    sinks = [
        start(lab, to, "tcp_sink", port, num_streams, warm_up_s, measure_s)
        for port, (_, to) in zip(ports, flows, strict=True)
    ]
    sources = [
        start(lab, source, "tcp_source", lab.record.host(to).address, port)
        for port, (source, to) in zip(ports, flows, strict=True)
        for _ in range(num_streams)
    ]
    goodputs = [float(sink.communicate()[0]) for sink in sinks]
    for source in sources:
        source.communicate()
    return [goodput * FRAME_BYTES_PER_PAYLOAD_BYTE * 8 / 1e6 for goodput in goodputs]


class Datagrams(NamedTuple):
    """What became of datagrams: the numbers of those that arrived, and their one-way delays in ms."""

    count: int
    numbers: np.ndarray
    delays_ms: np.ndarray

    def is_lost(self) -> np.ndarray:
        lost = np.ones(self.count, np.bool_)
        lost[self.numbers] = False
        return lost


def datagrams(lab: Lab, count: int, interval_s: float) -> Datagrams:
    """Send datagrams from the first host to the second."""
    source, destination = lab.record.hosts[:2]
    sink = start(lab, destination.name, "udp_sink", 1.0)
    sender = start(lab, source.name, "udp_source", destination.address, count, interval_s)
    table = np.frombuffer(sink.communicate()[0], [("number", "<u8"), ("delay_s", "<f8")])
    sender.communicate()
    return Datagrams(count, table["number"].astype(np.int64), table["delay_s"] * 1e3)


def two_hosts(**access: Any) -> Scenario:
    return Scenario(summary="two hosts", hosts=2, access=Access(**access))


def cpu_s(pid: int) -> float:
    """The processor time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


# The table.


class Row(msgspec.Struct, frozen=True):
    """One demand and how it was met; ``error`` and ``bound`` are in the same unit, whichever that is."""

    demand: str
    asked: str
    measured: str
    error: float
    bound: float

    @property
    def is_met(self) -> bool:
        return self.error <= self.bound


class Part(msgspec.Struct, frozen=True):
    """What one measurement found, and where."""

    surroundings: Surroundings
    rows: tuple[Row, ...]


def rate(mbits: Sequence[float] = (1, 10, 100, 1000), measure_s: float = 5.0) -> Iterator[Row]:
    """TCP with its headers reaches the rate, within 3 %."""
    for mbit in mbits:
        for congestion_control in ("cubic", "bbr"):
            with Lab(two_hosts(rate_mbit=mbit), congestion_control=congestion_control) as lab:
                [measured] = tcp_rates(lab, [("host0", "host1")], measure_s=measure_s)
            demand = f"rate, TCP {congestion_control}"
            yield Row(demand, f"{mbit:g} Mbit/s", f"{measured:.4g} Mbit/s", abs(measured / mbit - 1), 0.03)


def delay(delays_ms: Sequence[float] = (1, 5, 20, 50, 200), count: int = 1000) -> Iterator[Row]:
    """The median delay is what was asked, within 0.3 ms + 2 %; so is that of 95 of 100 packets."""
    for asked_ms in delays_ms:
        with Lab(two_hosts(up=Wire(delay_ms=asked_ms))) as lab:
            delays_ms = datagrams(lab, count, 0.002).delays_ms
        for name, measured_ms in (("median", np.median(delays_ms)), ("p95", np.percentile(delays_ms, 95))):
            error_ms = abs(float(measured_ms) - asked_ms)
            yield Row(
                f"one-way delay, {name}",
                f"{asked_ms} ms",
                f"{measured_ms:.3f} ms",
                error_ms,
                0.3 + 0.02 * asked_ms,
            )


def jitter(jitters_ms: Sequence[float] = (0.5, 1, 2), count: int = 50_000) -> Iterator[Row]:
    """The standard deviation of the delay is what was asked within 10 %, and nobody overtakes."""
    for asked_ms in jitters_ms:
        with Lab(two_hosts(up=Wire(delay_ms=10, jitter_ms=asked_ms))) as lab:
            arrived = datagrams(lab, count, 0.0004)
        # Half the span of the middle 68 %: for a Gaussian the deviation, and deaf to one hiccup of the machine.
        low_ms, high_ms = np.percentile(arrived.delays_ms, (15.87, 84.13))
        measured_ms = float(high_ms - low_ms) / 2
        error = abs(measured_ms / asked_ms - 1)
        yield Row("jitter (deviation)", f"{asked_ms} ms", f"{measured_ms:.3f} ms", error, 0.1)
        overtaken = int(np.count_nonzero(np.diff(arrived.numbers) < 0))
        yield Row("packets overtaken", "0", f"{overtaken}", overtaken, 0)


def loss(count: int = 50_000, interval_s: float = 0.0002) -> Iterator[Row]:
    """The share of packets lost, and the length of bursts, are what was asked within 10 %."""
    for asked in (0.01, 0.05):
        with Lab(two_hosts(up=Wire(loss=asked))) as lab:
            measured = datagrams(lab, count, interval_s).is_lost().mean()
        yield Row("random loss", f"{asked:.0%}", f"{measured:.3%}", abs(measured / asked - 1), 0.1)
    burst = BurstLoss(share=0.05, packets=4)
    with Lab(two_hosts(up=Wire(burst_loss=burst))) as lab:
        is_lost = datagrams(lab, count, interval_s).is_lost()
    share, num_bursts = is_lost.mean(), np.count_nonzero(is_lost[1:] & ~is_lost[:-1])
    packets = is_lost.sum() / num_bursts
    yield Row("bursty loss, share", f"{burst.share:.0%}", f"{share:.3%}", abs(share / burst.share - 1), 0.1)
    yield Row(
        "mean burst", f"{burst.packets}", f"{packets:.2f} packets", abs(packets / burst.packets - 1), 0.1
    )


def speed(measure_s: float = 5.0) -> Iterator[Row]:
    """Long fast paths: two hosts at 1 Gbit/s reach 600 Mbit/s or more over a round trip of 50 and of 100 ms."""
    for round_trip_ms in (50, 100):
        for congestion_control in ("cubic", "bbr"):
            scenario = Scenario(
                summary="",
                hosts=2,
                tcp_buffer_mb=64,
                access=Access(rate_mbit=1000, delay_ms=round_trip_ms / 4),
            )
            with Lab(scenario, congestion_control=congestion_control) as lab:
                [measured] = tcp_rates(lab, [("host0", "host1")], warm_up_s=4, measure_s=measure_s)
            demand = f"1 Gbit/s, {round_trip_ms} ms, TCP {congestion_control}"
            yield Row(demand, ">= 600 Mbit/s", f"{measured:.0f} Mbit/s", max(0.0, 600 - measured), 0)


def cost(measure_s: float = 5.0) -> Iterator[Row]:
    """Four hosts in a ring, 100 Mbit/s each: the processor time of the keeper, without delay and with 20 ms.

    The relay's part includes the receivers' TCP, which runs where the packet was sent from.
    """
    hosts = [f"host{index}" for index in range(4)]
    flows = list(zip(hosts, hosts[1:] + hosts[:1], strict=True))
    for congestion_control in ("cubic", "bbr"):
        for name, delay_ms, bound in (("rates only", 0, 0.01), ("20 ms round trip", 5, 1 / 3)):
            scenario = Scenario(summary="", hosts=4, access=Access(rate_mbit=100, delay_ms=delay_ms))
            with Lab(scenario, congestion_control=congestion_control) as lab:
                start_s, start_cpu_s = time.monotonic(), cpu_s(lab.record.keeper_pid)
                tcp_rates(lab, flows, measure_s=measure_s)
                cores = (cpu_s(lab.record.keeper_pid) - start_cpu_s) / (time.monotonic() - start_s)
            demand = f"emulation of {name}, TCP {congestion_control}"
            yield Row(demand, f"<= {bound:.2f} cores", f"{cores:.3f} cores", cores, bound)


MEASUREMENTS: dict[str, Callable[[], Iterator[Row]]] = {
    measurement.__name__: measurement for measurement in (rate, delay, jitter, loss, speed, cost)
}


def stored() -> dict[str, Part]:
    """The parts measured so far, in the order of ``MEASUREMENTS``."""
    if not RESULTS.exists():
        return {}
    parts = msgspec.json.decode(RESULTS.read_bytes(), type=dict[str, Part])
    return {name: parts[name] for name in MEASUREMENTS if name in parts}


def store(name: str, rows: Sequence[Row]) -> None:
    """Put a part among the stored ones."""
    parts = {**stored(), name: Part(Surroundings.of_this_machine(), tuple(rows))}
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(parts, enc_hook=float), indent=1) + b"\n")


def main(arguments: Sequence[str]) -> int:
    names = [argument for argument in arguments if argument != "--json"]
    table = Table("demand", "asked", "measured", "error", "bound", "")
    all_met = True
    for name in names or MEASUREMENTS:
        rows = []
        for row in MEASUREMENTS[name]():
            verdict = "met" if row.is_met else "BROKEN"
            print(f"{row.demand}: {row.asked}, {row.measured}: {verdict}", file=sys.stderr, flush=True)
            table.add_row(
                row.demand, row.asked, row.measured, f"{row.error:.3g}", f"{row.bound:.3g}", verdict
            )
            rows.append(row)
        all_met = all_met and all(row.is_met for row in rows)
        if "--json" in arguments:
            store(name, rows)
    Console(width=120).print(table)
    return 0 if all_met else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        INSIDE[sys.argv[2]](*sys.argv[3:])
    else:
        sys.exit(main(sys.argv[1:]))
