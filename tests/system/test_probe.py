"""``thinwire probe`` and ``thinwire bench link`` with real processes: launched here, and inside labs."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from thinwire.errors import UsageError
from thinwire.lab import Lab, Scenario
from thinwire.lab.run import run_everywhere
from thinwire.lab.scenario import Access, HostAccess
from thinwire.probe.link_test import LinkTest
from thinwire.topology import Topology, load

pytestmark = pytest.mark.system

THINWIRE = (sys.executable, "-m", "thinwire")
MBIT = 1e6 / 8
SLOW = Scenario(
    summary="three hosts, one slow",
    hosts=3,
    access=Access(rate_mbit=50),
    host=[HostAccess(names=["host2"], rate_mbit=10)],
)


def thinwire(*words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    answer = subprocess.run([*THINWIRE, *words], capture_output=True, text=True, timeout=60)
    assert answer.returncode == status, answer.stderr
    return answer


@pytest.fixture
def slow_lab() -> Iterator[Lab]:
    made = Lab(SLOW)
    try:
        made.start()
    except UsageError as error:
        pytest.skip(str(error))
    yield made
    made.close()


def test_a_launched_probe_writes_a_topology_and_prints_it(tmp_path: Path) -> None:
    file = tmp_path / "network.toml"
    words = ("--budget-s", "1", "--output", str(file), "--json", "--nproc-per-node", "2")
    said = msgspec.json.decode(thinwire("probe", *words).stdout, type=Topology)
    assert [link.ends for link in load(file).links] == [link.ends for link in said.links]
    assert all(link.bandwidth_bytes_per_s for link in said.links)


def test_a_slow_host_is_measured_and_named_in_a_lab(slow_lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "network.toml"
    said = io.StringIO()
    command = [*THINWIRE, "probe", "--budget-s", "4", "--output", str(file)]
    statuses = run_everywhere(slow_lab.record, command, stdout=said)
    assert set(statuses.values()) == {0}
    topology = load(file)
    assert [host.name for host in topology.hosts] == ["host0", "host1", "host2"]
    for link in topology.links:
        truth = (10 if "host2" in link.ends else 50) * MBIT * 1448 / 1514
        assert link.bandwidth_bytes_per_s == pytest.approx(truth, rel=0.25)
    assert "host2's uplink and downlink are" in said.getvalue()


QUICK = """
import os
from torch.distributed.rendezvous import rendezvous
from thinwire.probe import probe

def sent() -> int:
    [line] = [line for line in open("/proc/self/net/dev") if "eth0:" in line]
    return int(line.split(":")[1].split()[8])

rank, num_ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
store = next(rendezvous("env://", rank, num_ranks))[0]
before = sent()
topology = probe(store, rank, num_ranks, form="quick")
assert len(topology.links) == num_ranks * (num_ranks - 1), topology
print(sent() - before)
"""


def test_the_quick_form_sends_less_than_a_percent_of_what_ten_seconds_carry(slow_lab: Lab) -> None:
    said = io.StringIO()
    statuses = run_everywhere(slow_lab.record, [sys.executable, "-c", QUICK], stdout=said)
    assert set(statuses.values()) == {0}
    for line in said.getvalue().splitlines():
        host, num_bytes = line.split("|")
        rate = (10 if host.strip() == "host2" else 50) * MBIT
        assert 0 < int(num_bytes) < 0.01 * 10 * rate


def test_a_host_that_does_not_come_is_a_gap_and_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
    }.items():
        monkeypatch.setenv(name, value)
    answer = thinwire("probe", "--quick", "--join-s", "0.5", status=1)
    assert "not measured: rank1: it did not come within 0.5 s" in answer.stdout


def test_bench_link_compares_and_recommends() -> None:
    test = msgspec.json.decode(thinwire("bench", "link", "--seconds", "0.1", "--json").stdout, type=LinkTest)
    assert {result.way.protocol for result in test.results} == {"idle", "tcp", "unix", "udp"}
    assert test.recommended in [result.way for result in test.results]
    assert "THINWIRE_LANES" in test.settings


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("probe",), "two ranks or more"),
        (("probe", "--budget-s", "0.1", "--nproc-per-node", "2"), "too little"),
        (("probe", "--output", "no/such/folder/file.toml"), "no folder"),
        (("bench", "link", "--seconds", "0"), "too little"),
        (("bench", "nothing"), "nothing"),
    ],
)
def test_mistakes_are_explained(words: tuple[str, ...], message: str) -> None:
    answer = subprocess.run([*THINWIRE, *words], capture_output=True, text=True, timeout=60)
    assert answer.returncode != 0
    assert message in answer.stderr
