"""What packets meet in a lab, against what its scenario says. ``benchmarks/lab_fidelity.py`` measures it in full."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import lab_fidelity
from benchmarks.lab_fidelity import Row, datagrams, tcp_rates
from thinwire.errors import UsageError
from thinwire.lab import Lab
from thinwire.lab.scenario import (
    Access,
    Background,
    Between,
    BurstLoss,
    Cut,
    Scenario,
    Site,
    Trace,
    Wire,
)

pytestmark = pytest.mark.system

SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))


@pytest.fixture(scope="module", autouse=True)
def _permitted() -> None:
    try:
        with Lab("lan-1g"):
            pass
    except UsageError as error:
        pytest.skip(str(error))


def broken(*rows: Row) -> list[Row]:
    return [row for row in rows if not row.is_met]


def test_tcp_reaches_the_rate() -> None:
    assert not broken(*lab_fidelity.rate(mbits=(20, 200), measure_s=1.0))


def test_packets_are_delayed_as_asked() -> None:
    assert not broken(*lab_fidelity.delay(delays_ms=(1, 30), count=300))


def test_packets_are_lost_as_asked() -> None:
    with Lab(lab_fidelity.two_hosts(up=Wire(burst_loss=BurstLoss(share=0.1, packets=5)))) as lab:
        is_lost = datagrams(lab, 10_000, 0.0001).is_lost()
    bursts = np.count_nonzero(is_lost[1:] & ~is_lost[:-1])
    assert is_lost.mean() == pytest.approx(0.1, rel=0.2)
    assert is_lost.sum() / bursts == pytest.approx(5, rel=0.2)


def test_super_packets_pass_the_relay_whole() -> None:
    """So a long fast path works: here 1 Gbit/s over a round trip of 20 ms."""
    scenario = Scenario(summary="", hosts=2, access=Access(rate_mbit=1000, delay_ms=5))
    with Lab(scenario) as lab:
        [measured] = tcp_rates(lab, [("host0", "host1")], measure_s=1.5)
    assert measured > 600


def test_links_between_two_hosts_have_a_rate_of_their_own() -> None:
    scenario = Scenario(
        summary="",
        hosts=3,
        access=Access(rate_mbit=50),
        link=[Between(between=["host0", "host1"], rate_mbit=10)],
    )
    with Lab(scenario) as lab:
        rates = tcp_rates(lab, [("host0", "host1"), ("host0", "host2")], measure_s=1.5)
    assert rates == pytest.approx([10, 40], rel=0.05)


def test_sites_share_the_pipe_between_them() -> None:
    scenario = Scenario(
        summary="",
        hosts=4,
        site=[Site(name="east", hosts=["host0", "host1"]), Site(name="west", hosts=["host2", "host3"])],
        pipe=[Between(between=["east", "west"], rate_mbit=20)],
    )
    with Lab(scenario) as lab:
        together = tcp_rates(lab, [("host0", "host2"), ("host1", "host3")], measure_s=1.5)
    assert sum(together) == pytest.approx(20, rel=0.05)


def test_background_traffic_takes_its_part() -> None:
    background = Background(from_="host0", to="host1", rate_mbit=20)
    scenario = Scenario(summary="", hosts=2, access=Access(rate_mbit=50), background=[background])
    with Lab(scenario) as lab:
        [measured] = tcp_rates(lab, [("host0", "host1")], measure_s=1.5)
    assert measured == pytest.approx(30, rel=0.05)


def test_a_trace_changes_the_rate_under_a_running_flow() -> None:
    trace = Trace(on=["host0.up"], at_s=[0, 1.5], rate_mbit=[100, 5])
    with Lab(Scenario(summary="", hosts=2, access=Access(rate_mbit=100), trace=[trace])) as lab:
        [measured] = tcp_rates(lab, [("host0", "host1")], warm_up_s=2.0, measure_s=1.5)
    assert measured == pytest.approx(5, rel=0.1)


def test_a_cut_begins_and_ends_silently() -> None:
    cut = Cut(between=[["host0"], ["host1"]], at_s=0.4, for_s=0.5, every_s=1.0)
    with Lab(Scenario(summary="", hosts=2, cut=[cut])) as lab:
        is_lost = datagrams(lab, 1500, 0.002).is_lost()
    assert is_lost.mean() == pytest.approx(0.5, abs=0.1)
    assert 2 <= np.count_nonzero(is_lost[1:] & ~is_lost[:-1]) <= 4
