"""Topologies as values, as files, and compared."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from thinwire.errors import UsageError
from thinwire.topology import (
    Bottleneck,
    Difference,
    Gap,
    Host,
    Link,
    Topology,
    diff,
    dumps,
    load,
    loads,
    save,
)

PAIR = Topology(
    measured_at="2026-01-02T03:04:05Z",
    hosts=(
        Host(name="host0", address="10.0.0.1", interface="eth0", uplink_bytes_per_s=2.5e6),
        Host(name="host 1"),
    ),
    links=(
        Link(source="host0", destination="host 1", one_stream_bytes_per_s=12.5e6, rtt_min_s=0.0105, loss=1e-5),
        Link(source="host 1", destination="host0", rtt_p99_s=0.5, queue_s=0.0, loaded_loss=0.25),
    ),
    bottlenecks=(
        Bottleneck(links=(("host 1", "host0"), ("host0", "host 1")), bandwidth_bytes_per_s=1.25e6),
    ),
    gaps=(Gap(what="host2", reason='it said "no"'),),
    findings=("host0's uplink is slow", "nothing else"),
)  # fmt: skip


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    save(PAIR, tmp_path / "network.toml")
    assert load(tmp_path / "network.toml") == PAIR


def test_the_file_has_a_line_for_each_link_with_units_in_the_keys() -> None:
    assert '"host0 -> host 1" = { one_stream_mbit = 100, rtt_min_ms = 10.5, loss = 0.00001 }' in dumps(PAIR)


@given(st.floats(1e-3, 1e12), st.floats(0, 1e3), st.floats(0, 1))
def test_numbers_survive_to_four_digits(rate: float, rtt_s: float, loss: float) -> None:
    link = Link(source="a", destination="b", several_streams_bytes_per_s=rate, rtt_min_s=rtt_s, loss=loss)
    topology = Topology(hosts=(Host(name="a"), Host(name="b")), links=(link,))
    [found] = loads(dumps(topology)).links
    assert found.several_streams_bytes_per_s == pytest.approx(rate, rel=1e-3)
    assert found.rtt_min_s == pytest.approx(rtt_s, rel=1e-3, abs=1e-12)
    assert found.loss == pytest.approx(loss, rel=1e-3, abs=1e-11)
    assert dumps(loads(dumps(topology))) == dumps(topology)


@pytest.mark.parametrize(
    ("change", "to", "message"),
    [
        ("rtt_min_ms = 10.5", "rtt_min = 10.5", "network:LINE: 'host0 -> host 1' has an unknown key 'rtt_min'"),
        ("loss = 0.00001", "loss = 1.5", "network:LINE: 'host0 -> host 1': .*loss is 1.5: use a number from 0 to 1"),
        ("one_stream_mbit = 100", 'one_stream_mbit = "fast"', "network:LINE: .*Expected `float"),
        ("one_stream_mbit = 100", "one_stream_mbit = -3", "network:LINE: .*use a positive number"),
        ('"host0 -> host 1" = {', '"host0 to host 1" = {', "network:LINE: 'host0 to host 1' is not a link"),
        ('"host0 -> host 1" = {', '"host0 -> host9" = {', "there is no host 'host9'"),
        ('"host0 -> host 1" = {', '"host0 -> host0" = {', "network:LINE: .*two different ends"),
        ("format = 1", "format = 2", "network:LINE: format is 2, this thinwire reads 1"),
        ('form = "full"', 'shape = "full"', "network:LINE: unknown key 'shape'"),
        ("[hosts]", "hosts = 3\n[other]", "unknown key 'other'"),
        ("bandwidth_mbit = 10", "mbit = 10", "network:16: a bottleneck has bandwidth_mbit and links"),
        ("bandwidth_mbit = 10", "bandwidth_mbit = 0", "network:16: .*use a positive number"),
        ("format = 1", "format = ", "network: Invalid value.*line 1"),
    ],
)  # fmt: skip
def test_a_broken_file_is_refused_with_line_and_reason(change: str, to: str, message: str) -> None:
    text = dumps(PAIR)
    assert change in text
    broken = text.replace(change, to, 1)
    line = broken[: broken.index(to)].count("\n") + 1
    with pytest.raises(UsageError, match=message.replace("LINE", str(line))):
        loads(broken, "network")


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="cannot be written"):
        save(PAIR, tmp_path / "no" / "folder.toml")


@pytest.mark.parametrize(
    "build",
    [
        lambda: Topology(hosts=(Host(name="a"), Host(name="a"))),
        lambda: Bottleneck(links=(("a", "b"),), bandwidth_bytes_per_s=1.0),
        lambda: Host(name=""),
        lambda: Link(source="a", destination="b", loss=float("nan")),
        lambda: PAIR.link("host0", "host9"),
        lambda: PAIR.host("host9"),
    ],
)
def test_nonsense_is_refused(build: object) -> None:
    with pytest.raises(UsageError):
        build()  # type: ignore[operator]


def test_diff_tells_what_came_went_and_moved_and_leaves_noise_alone() -> None:
    def network(rate: float, rtt_s: float, *hosts: str) -> Topology:
        link = Link(source="a", destination="b", one_stream_bytes_per_s=rate, rtt_min_s=rtt_s)
        return Topology(hosts=tuple(Host(name=name) for name in ("a", "b", *hosts)), links=(link,))

    assert diff(network(100.0, 0.0001), network(105.0, 0.0003)) == ()
    assert [str(found) for found in diff(network(100.0, 0.1, "c"), network(50.0, 0.2, "d"))] == [
        "c is gone",
        "d is new",
        "a -> b: one_stream_bytes_per_s was 100, is 50",
        "a -> b: rtt_min_s was 0.1, is 0.2",
    ]
    assert (
        str(Difference(what="a", field="address", before="x", after=None))
        == "a: address was x, is not measured"
    )
