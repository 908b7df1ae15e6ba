"""What changes when: repetition, order, and who is cut off from whom."""

from __future__ import annotations

import itertools

from thinwire.lab.resolve import network_of
from thinwire.lab.scenario import Between, Cut, Scenario, Site, Trace
from thinwire.lab.timeline import Change, pairs_cut, timeline


def first_changes(scenario: Scenario, count: int) -> list[Change]:
    return list(itertools.islice(timeline(scenario, network_of(scenario)), count))


def test_traces_and_cuts_are_merged_in_order_of_time_and_repeat() -> None:
    scenario = Scenario(
        summary="",
        hosts=2,
        trace=[Trace(on=["host1.up"], at_s=[1, 3], delay_ms=[10, 20], loss=[0.1, 0], every_s=4)],
        cut=[Cut(between=[["host0"], []], at_s=2, for_s=2.5, every_s=100)],
    )
    assert first_changes(scenario, 8) == [
        Change(1, "delay_s", 1, 0.01),
        Change(1, "loss", 1, 0.1),
        Change(2, "cut", 0, 1),
        Change(3, "delay_s", 1, 0.02),
        Change(3, "loss", 1, 0),
        Change(4.5, "cut", 0, 0),
        Change(5, "delay_s", 1, 0.01),
        Change(5, "loss", 1, 0.1),
    ]


def test_what_does_not_repeat_ends() -> None:
    scenario = Scenario(summary="", hosts=1, trace=[Trace(on=["*.up"], at_s=[0, 1], rate_mbit=[8, 16])])
    assert first_changes(scenario, 10) == [
        Change(0, "rate_bytes_per_s", 0, 1e6),
        Change(1, "rate_bytes_per_s", 0, 2e6),
    ]


def test_a_cut_is_between_hosts_sites_or_one_and_all_others() -> None:
    scenario = Scenario(
        summary="",
        hosts=3,
        site=[Site(name="east", hosts=["host0", "host1"]), Site(name="west", hosts=["host2"])],
        pipe=[Between(between=["east", "west"])],
    )
    network = network_of(scenario)

    def pairs(*between: list[str]) -> set[tuple[int, int]]:
        return pairs_cut(Cut(between=list(between), at_s=0, for_s=1), network)

    assert pairs(["east"], ["west"]) == {(0, 2), (2, 0), (1, 2), (2, 1)}
    assert pairs(["host1"], []) == {(1, 0), (0, 1), (1, 2), (2, 1)}
    assert pairs(["host0"], ["host2"]) == {(0, 2), (2, 0)}
