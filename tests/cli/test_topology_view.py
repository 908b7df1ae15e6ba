"""How a topology looks: the table, the heat maps, and images where matplotlib is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from thinwire.cli import topology_view
from thinwire.errors import UsageError
from thinwire.topology import Gap, Host, Link, Topology

MBIT = 1e6 / 8


def topology() -> Topology:
    """Three hosts; one link is fast, one slow, and the others were not measured."""
    return Topology(
        hosts=tuple(Host(name=name) for name in ("a", "b", "c")),
        links=(
            Link(source="a", destination="b", one_stream_bytes_per_s=1000 * MBIT, rtt_median_s=0.0001),
            Link(source="b", destination="a", one_stream_bytes_per_s=10 * MBIT, rtt_median_s=0.02),
            Link(source="a", destination="c"),
        ),
        gaps=(Gap(what="c", reason="it did not come"),),
    )


def test_the_table_has_what_was_measured_and_what_was_not(capsys: pytest.CaptureFixture[str]) -> None:
    topology_view.show(topology())
    shown = capsys.readouterr().out
    assert "1000" in shown
    assert "1e+03" not in shown
    assert "jitter" not in shown  # nobody measured it
    assert "! not measured: c: it did not come" in shown


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_an_image_is_drawn(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / f"network{suffix}"
    topology_view.plot(topology(), file)
    begin = {".png": b"\x89PNG", ".svg": b"<?xml"}[suffix]
    assert file.read_bytes().startswith(begin)


def test_nothing_measured_is_an_image_too(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    topology_view.plot(Topology(hosts=(Host(name="a"), Host(name="b"))), tmp_path / "nothing.png")


def test_a_kind_of_file_that_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(UsageError, match="cannot draw into"):
        topology_view.plot(topology(), tmp_path / "network.nonsense")


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"thinwire\[plot\]"):
        topology_view.check_plotting()
