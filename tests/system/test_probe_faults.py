"""A probe that meets the worst: it ends, with what could be measured, what could not, and why; the status is 1."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from thinwire.clock import SYSTEM_CLOCK
from thinwire.errors import UsageError
from thinwire.lab import Lab, Scenario
from thinwire.lab.lab import popen
from thinwire.lab.scenario import Access, Cut
from thinwire.topology import Topology, load

pytestmark = pytest.mark.system

# `thinwire probe` as it is, but for its progress, which is told line by line.
ALOUD = """
import sys
from thinwire.cli import main, probe_worker
quiet = probe_worker.measure
probe_worker.measure = lambda form, budget_s, join_s, progress: quiet(
    form, budget_s, join_s, lambda purpose: print(purpose, file=sys.stderr, flush=True)
)
sys.exit(main())
"""
ENDS_WITHIN_S = 90
HOSTS = ("host0", "host1", "host2")
OFFICE = Scenario(summary="", hosts=3, access=Access(rate_mbit=50))


@contextmanager
def lab_of(scenario: Scenario) -> Iterator[Lab]:
    made = Lab(scenario)
    try:
        made.start()
    except UsageError as error:
        pytest.skip(str(error))
    try:
        yield made
    finally:
        made.close()


def start(lab: Lab, *words: str) -> dict[str, subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", ALOUD, "probe", *words]
    return {
        host.name: popen(lab.record, host.name, command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for host in lab.record.hosts
    }


def statuses(processes: dict[str, subprocess.Popen[bytes]]) -> dict[str, int]:
    """As soon as all have ended. What is left of them ends with this."""
    try:
        return {name: process.wait(ENDS_WITHIN_S) for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
            assert process.stderr is not None
            process.stderr.close()


def await_step(process: subprocess.Popen[bytes], words: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if words in line.decode():
            return
    raise AssertionError(f"it ended before {words!r}")


def reasons(topology: Topology) -> dict[str, str]:
    return {gap.what: gap.reason for gap in topology.gaps}


def test_the_quick_form_is_over_in_a_second_though_a_host_is_killed_in_it(tmp_path: Path) -> None:
    file = tmp_path / "network.toml"
    with lab_of(OFFICE) as lab:
        processes = start(lab, "--quick", "--output", str(file))
        await_step(processes["host0"], "round trips and trains")
        began_s = SYSTEM_CLOCK.now_s()
        processes["host2"].kill()
        found = statuses(processes)
    assert SYSTEM_CLOCK.now_s() - began_s < 5  # and Python ends
    assert (found["host0"], found["host1"]) == (1, 1)
    topology = load(file)
    assert "did not report within" in reasons(topology)["host2"]
    for ends in (("host0", "host1"), ("host1", "host0")):
        assert topology.link(*ends).rtt_median_s


def test_the_quick_form_says_which_hosts_a_firewall_keeps_apart(tmp_path: Path) -> None:
    file = tmp_path / "network.toml"
    firewall = Cut(between=[["host1"], ["host2"]], at_s=0, for_s=10_000)
    scenario = Scenario(summary="", hosts=3, access=Access(rate_mbit=50), cut=[firewall])
    with lab_of(scenario) as lab:
        found = statuses(start(lab, "--quick", "--output", str(file)))
    assert set(found.values()) == {1}
    topology = load(file)
    assert set(reasons(topology)) == {"host1 -> host2", "host2 -> host1"}
    assert all("may drop UDP" in reason for reason in reasons(topology).values())
    assert {link.ends for link in topology.links} == {
        ends for other in ("host1", "host2") for ends in (("host0", other), (other, "host0"))
    }


def test_a_host_that_is_killed_in_the_middle_is_a_gap_and_the_rest_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "network.toml"
    with lab_of(OFFICE) as lab:
        processes = start(lab, "--budget-s", "3", "--output", str(file))
        await_step(processes["host0"], "bandwidth, round 2")
        processes["host2"].kill()
        found = statuses(processes)
    assert (found["host0"], found["host1"]) == (1, 1)
    topology = load(file)
    assert "did not report" in reasons(topology)["host2"]
    for ends in (("host0", "host1"), ("host1", "host0")):
        assert topology.link(*ends).bandwidth_bytes_per_s
        assert topology.link(*ends).rtt_median_s


def test_when_the_first_host_is_killed_the_others_say_so_and_end() -> None:
    with lab_of(OFFICE) as lab:
        processes = start(lab, "--budget-s", "3")
        await_step(processes["host0"], "bandwidth, round 1")
        processes["host0"].kill()
        found = statuses(processes)
    assert (found["host1"], found["host2"]) == (1, 1)


def test_a_firewall_between_two_hosts_is_a_gap_in_both_directions(tmp_path: Path) -> None:
    file = tmp_path / "network.toml"
    firewall = Cut(between=[["host1"], ["host2"]], at_s=0, for_s=10_000)
    scenario = Scenario(summary="", hosts=3, access=Access(rate_mbit=50), cut=[firewall])
    with lab_of(scenario) as lab:
        found = statuses(start(lab, "--budget-s", "2", "--output", str(file)))
    assert set(found.values()) == {1}
    topology = load(file)
    assert set(reasons(topology)) == {"host1 -> host2", "host2 -> host1"}
    assert all("no answer within" in reason for reason in reasons(topology).values())
    assert all(link.bandwidth_bytes_per_s and "host0" in link.ends for link in topology.links)
