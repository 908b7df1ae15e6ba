"""Probes between threads over the loopback interface: they end, agree, and say what is missing."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.probe.stores import ThreadStore
from thinwire.clock import SYSTEM_CLOCK
from thinwire.errors import CollectiveTimeoutError, LinkError, ThinwireError, UsageError
from thinwire.probe import probe
from thinwire.topology import Topology, dumps


def probes(num_ranks: int, *, absent: tuple[int, ...] = (), **options: object) -> list[Future[Topology]]:
    store = ThreadStore()
    with ThreadPoolExecutor(num_ranks) as pool:
        return [
            pool.submit(
                probe, store, rank, num_ranks, interface="127.0.0.1", host=f"host{rank}", **options  # type: ignore[arg-type]
            )
            for rank in range(num_ranks)
            if rank not in absent
        ]  # fmt: skip


def test_the_full_form_measures_every_link_and_all_ranks_get_the_same() -> None:
    began_s = SYSTEM_CLOCK.now_s()
    topologies = [future.result() for future in probes(3, budget_s=2)]
    assert SYSTEM_CLOCK.now_s() - began_s < 8
    topology = topologies[0]
    assert {dumps(other) for other in topologies} == {dumps(topology)}
    assert len(topology.links) == 6
    assert not topology.gaps
    for link in topology.links:
        assert (link.bandwidth_bytes_per_s or 0) > 1e7
        assert 0 < (link.rtt_min_s or 0) <= (link.rtt_median_s or 0) <= (link.rtt_p99_s or 0)
        assert (link.loss or 0) < 0.2
        assert link.queue_s is not None
    assert topology.measured_at.endswith("Z")
    assert "one machine" in topology.findings[-1]


def test_the_quick_form_takes_less_than_a_second_and_all_ranks_get_the_same() -> None:
    began_s = SYSTEM_CLOCK.now_s()
    topologies = [future.result() for future in probes(4, form="quick")]
    assert SYSTEM_CLOCK.now_s() - began_s < 1
    topology = topologies[0]
    assert {dumps(other) for other in topologies} == {dumps(topology)}
    assert topology.form == "quick"
    assert not topology.gaps
    assert len(topology.links) == 12
    assert all(link.rtt_median_s for link in topology.links)
    assert all(host.address == "127.0.0.1" and host.interface == "lo" for host in topology.hosts)


def test_a_rank_that_does_not_come_is_a_gap() -> None:
    topology = probes(3, absent=(2,), form="quick", join_s=0.2)[0].result()
    assert [(gap.what, gap.reason) for gap in topology.gaps] == [("rank2", "it did not come within 0.2 s")]
    assert len(topology.links) == 2


def test_without_rank_0_the_others_say_so() -> None:
    [future] = probes(2, absent=(0,), form="quick", join_s=0.1)
    with pytest.raises(CollectiveTimeoutError, match="rank 0 did not go on"):
        future.result()


def test_a_mistake_of_rank_0_ends_all() -> None:
    first, second = probes(2, budget_s=0.1)
    with pytest.raises(UsageError, match="too little"):
        first.result()
    with pytest.raises(ThinwireError, match="rank 0 stopped"):
        second.result()


def test_a_rank_with_a_wrong_interface_says_why_and_the_others_go_on() -> None:
    store = ThreadStore()
    with ThreadPoolExecutor(2) as pool:
        good = pool.submit(probe, store, 0, 2, form="quick", interface="127.0.0.1", host="good")
        bad = pool.submit(probe, store, 1, 2, form="quick", interface="eth99", host="bad")
    with pytest.raises(UsageError, match="eth99"):
        bad.result()
    [gap] = good.result().gaps
    assert gap.what == "rank1"
    assert "eth99" in gap.reason


def test_a_store_that_is_gone_is_a_link_error() -> None:
    store = ThreadStore()
    store.is_down = True
    with pytest.raises(LinkError, match="the store where the ranks meet failed"):
        probe(store, 0, 2)


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(UsageError, match="'full' or 'quick'"):
        probe(ThreadStore(), 0, 2, form="thorough")


def test_nothing_is_left_running_or_open() -> None:
    before = set(threading.enumerate())
    for future in probes(2, form="quick"):
        future.result()
    assert set(threading.enumerate()) <= before


def test_a_clock_that_jumps_ahead_ends_a_probe_early_and_never_holds_it_up() -> None:
    class Jumping:
        """An hour passes at once, as for a machine that was suspended."""

        def __init__(self) -> None:
            self.num_asked = 0

        def now_s(self) -> float:
            self.num_asked += 1
            return SYSTEM_CLOCK.now_s() + 3600 * (self.num_asked > 20)

    store = ThreadStore()
    began_s = SYSTEM_CLOCK.now_s()
    with ThreadPoolExecutor(2) as pool:
        options = {"form": "quick", "interface": "127.0.0.1"}
        steady = pool.submit(probe, store, 0, 2, host="steady", **options)  # type: ignore[arg-type]
        jumping = pool.submit(probe, store, 1, 2, host="jumping", clock=Jumping(), **options)  # type: ignore[arg-type]
        topology = steady.result()
        assert dumps(jumping.result()) == dumps(topology)
    assert SYSTEM_CLOCK.now_s() - began_s < 20
    assert topology.gaps
    assert all((link.rtt_median_s or 0) < 1 for link in topology.links)
