"""Bulk streams, trains of datagrams and the kernel's statistics, over the loopback interface."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from thinwire.clock import SYSTEM_CLOCK
from thinwire.errors import LinkError, UsageError
from thinwire.transport.bulk import TOKEN_BYTES, BulkSink, Poured, Progress, greet, pour
from thinwire.transport.datagrams import DatagramPort
from thinwire.transport.tcp import congestion_controls
from thinwire.transport.tcp_info import tcp_info

TOKEN = b"t" * TOKEN_BYTES
KEY = (7, 0)


@pytest.fixture
def sink() -> Iterator[BulkSink]:
    made = BulkSink(TOKEN, "127.0.0.1", SYSTEM_CLOCK)
    yield made
    made.close()


def poured(
    address: str,
    *,
    token: bytes = TOKEN,
    alone_s: float = 0.05,
    together_s: float = 0.0,
    control: str | None = None,
) -> Poured:
    return pour(
        address,
        token,
        KEY,
        alone_s=alone_s,
        together_s=together_s,
        num_streams=3,
        congestion_control=control,
        timeout_s=2.0,
        clock=SYSTEM_CLOCK,
    )


def arrived(sink: BulkSink, wait_s: float = 5.0) -> Progress:
    return sink.arrivals(KEY, duration_s=wait_s, deadline_s=SYSTEM_CLOCK.now_s() + wait_s)


@pytest.mark.parametrize("over", ["tcp", "unix"])
def test_what_is_poured_arrives_in_two_phases(sink: BulkSink, over: str) -> None:
    address = sink.addresses[0] if over == "tcp" else sink.unix_address
    result = poured(address, together_s=0.05)
    progress = arrived(sink)
    assert progress.joined is not None
    assert 0 < progress.joined < len(progress.times_s)
    assert progress.times_s == sorted(progress.times_s)
    assert progress.totals == sorted(progress.totals)
    assert len(progress.times_s) < 60  # samples, not every read
    if over == "tcp" and result.delivered.totals:
        assert len(result.infos) == 3
        assert result.delivered.totals[-1] == pytest.approx(progress.totals[-1], rel=0.5)


def test_a_stranger_without_the_token_is_not_counted(sink: BulkSink) -> None:
    with pytest.raises(LinkError):
        poured(sink.addresses[0], token=b"x" * TOKEN_BYTES, alone_s=2)
    assert arrived(sink, wait_s=0.05).totals == []


def test_a_flow_that_never_comes_is_waited_for_no_longer_than_said(sink: BulkSink) -> None:
    began_s = SYSTEM_CLOCK.now_s()
    assert arrived(sink, wait_s=0.05).times_s == []
    assert SYSTEM_CLOCK.now_s() - began_s < 1


def test_a_greeting_tells_who_listens(sink: BulkSink) -> None:
    route = greet(sink.addresses[0], TOKEN, sink.name, 2.0, SYSTEM_CLOCK)
    assert (route.address, route.source) == (sink.addresses[0], "127.0.0.1")
    with pytest.raises(LinkError, match="somebody else"):
        greet(sink.addresses[0], TOKEN, b"m" * 16, 2.0, SYSTEM_CLOCK)
    with pytest.raises(LinkError, match=r"somebody else|reset"):
        greet(sink.addresses[0], b"x" * TOKEN_BYTES, sink.name, 2.0, SYSTEM_CLOCK)


def test_a_host_that_does_not_answer_is_a_link_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(LinkError, match=r"no answer within 0\.1 s"):
            greet(address, TOKEN, b"m" * 16, 0.1, SYSTEM_CLOCK)
    with pytest.raises(LinkError, match="refused"):
        greet(address, TOKEN, b"m" * 16, 0.1, SYSTEM_CLOCK)


def test_the_kernels_congestion_controls_can_be_chosen_and_others_not(sink: BulkSink) -> None:
    for name in congestion_controls():
        assert poured(sink.addresses[0], control=name).delivered is not None
    with pytest.raises(UsageError, match="tcp_available_congestion_control"):
        poured(sink.addresses[0], control="nosuch")


def test_samples_are_thinned_but_not_the_moment_others_join() -> None:
    progress = Progress()
    for number in range(100):
        progress.note(number / 1000, number, is_joined=number >= 50)
    assert progress.joined is not None
    assert progress.totals[progress.joined] == 50
    assert progress.totals[-1] == 99
    assert 15 < len(progress.times_s) < 30


def test_trains_see_every_datagram_and_round_trips_without_a_common_clock() -> None:
    class Ahead:
        def now_s(self) -> float:
            return SYSTEM_CLOCK.now_s() + 1000

    clocks = enumerate((SYSTEM_CLOCK, Ahead()))
    ports = [DatagramPort(TOKEN, number, "127.0.0.1", clock) for number, clock in clocks]
    stranger = DatagramPort(secrets.token_bytes(TOKEN_BYTES), 1, "127.0.0.1", SYSTEM_CLOCK)
    timing = {"interval_s": 0.002, "duration_s": 0.1, "linger_s": 2.0, "size_bytes": 64}
    with ThreadPoolExecutor(3) as pool:
        addresses = [("127.0.0.1", port.port) for port in ports]
        noise = pool.submit(stranger.exchange, {0: addresses[0]}, 1, **(timing | {"linger_s": 0.0}))
        first = pool.submit(ports[0].exchange, {1: addresses[1]}, 1, **timing)
        second = pool.submit(ports[1].exchange, {0: addresses[0]}, 1, **timing)
        trains = [first.result()[1], second.result()[0]]
        noise.result()
    for port in (*ports, stranger):
        port.close()
    assert [trains[0].num_received, trains[1].num_received] == [trains[1].num_sent, trains[0].num_sent]
    for train, offset_s in zip(trains, (-1000, 1000), strict=True):
        assert 0 <= min(train.rtts_s) < 0.1
        assert max(train.rtts_s) > 0
        assert min(train.delays_s) == pytest.approx(offset_s, abs=0.1)


def test_a_silent_peer_does_not_hold_up_a_train() -> None:
    port = DatagramPort(TOKEN, 0, "127.0.0.1", SYSTEM_CLOCK)
    timing = {"interval_s": 0.01, "duration_s": 0.03, "linger_s": 0.02}
    train = port.exchange({1: ("127.0.0.1", 9)}, 1, **timing)[1]
    port.close()
    assert train.num_received == 0
    assert train.num_sent >= 1


def test_several_partners_at_once_are_told_apart() -> None:
    clocks = [
        SimpleNamespace(now_s=lambda ahead=number: SYSTEM_CLOCK.now_s() + 1000 * ahead) for number in range(3)
    ]
    ports = [DatagramPort(TOKEN, number, "127.0.0.1", clock) for number, clock in enumerate(clocks)]
    addresses = {number: ("127.0.0.1", port.port) for number, port in enumerate(ports)}
    timing = {"interval_s": 0.005, "duration_s": 0.2, "linger_s": 2.0}
    with ThreadPoolExecutor(3) as pool:
        futures = [
            pool.submit(
                port.exchange,
                {other: addresses[other] for other in addresses if other != number},
                7,
                **timing,
            )
            for number, port in enumerate(ports)
        ]
        found = [future.result() for future in futures]
    for port in ports:
        port.close()
    for own, trains in enumerate(found):
        for other, train in trains.items():
            sent = found[other][own]
            assert train.num_received == sent.num_sent
            assert min(train.delays_s) == pytest.approx(1000 * (own - other), abs=0.1)
            assert all(abs(rtt_s) < 0.1 for rtt_s in train.rtts_s)


def test_a_closed_sink_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    BulkSink(TOKEN, "127.0.0.1", SYSTEM_CLOCK).close()
    assert set(threading.enumerate()) <= before


def test_tcp_info_counts_what_was_sent_and_says_nothing_of_other_sockets() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as one,
    ):
        other, _ = listener.accept()
        with other:
            one.sendall(bytes(100_000))
            received = 0
            while received < 100_000:
                received += len(other.recv(1 << 20))
            info = tcp_info(one)
    if info is not None:
        assert info.bytes_sent >= 100_000
        assert info.bytes_delivered <= info.bytes_sent
        assert 0 < info.rtt_s < 1
    left, right = socket.socketpair()
    with left, right:
        assert tcp_info(left) is None
