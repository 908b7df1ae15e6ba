"""Scenario files: what they mean, and which mistakes are refused, with the line and the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from thinwire.errors import ScenarioError, UsageError
from thinwire.lab import Lab, load, shipped
from thinwire.lab.library import line_of, parse
from thinwire.lab.resolve import network_of
from thinwire.lab.scenario import Access, Scenario

HEAD = 'summary = "a test"\nhosts = 3\n'

MISTAKES = {
    "unknown key": ("[access]\nrate_mbit = 5\nspeed = 3", 5, "unknown field `speed`"),
    "unknown key of a direction": ("[access]\nup = { rat_mbit = 5 }", 4, "unknown field `rat_mbit`"),
    "rate of nothing": ("[access]\nrate_mbit = 0", 4, ">= 0.001"),
    "negative delay": ("[access.down]\ndelay_ms = -1", 4, ">= 0"),
    "more than everything lost": ("[access]\nloss = 1.5", 4, "< 1"),
    "text for a number": ('[access]\nrate_mbit = "fast"', 4, "got `str`"),
    "jitter beyond delay": ("[access]\ndelay_ms = 2\njitter_ms = 2", 5, "half of the delay"),
    "no number": ("[access]\ndelay_ms = nan", 4, ">= 0"),
    "endless rate": ("[access]\nrate_mbit = inf", 4, "<= 30000"),
    "endless queue": ("[access]\nqueue_kb = inf", 4, "<= 1000000"),
    "seed beyond all": ("seed = 99999999999999999999999", 3, "<= 9007199254740992"),
    "congestion control of two words": ('congestion_control = "a b"', 3, "matching regex"),
    "bursts without an end": (
        "[access]\nrate_mbit = 5\nburst_loss = { share = 0.9, packets = 1 }",
        5,
        "0.5 at most",
    ),
    "jitter beyond delay, later": (
        '[access]\ndelay_ms = 4\n[[trace]]\non = ["host1.*"]\nat_s = [0, 3]\njitter_ms = [2, 3]',
        8,
        "at 3 s host1.up has a jitter of 3 ms",
    ),
    "delay below jitter, later": (
        '[access]\ndelay_ms = 4\njitter_ms = 2\n[[trace]]\non = ["*"]\nat_s = [0]\ndelay_ms = [3]',
        9,
        "half of the delay",
    ),
    "trace without a pause": ('[[trace]]\non = ["*"]\nat_s = [0]\nloss = [0]\nevery_s = 1e-9', 7, ">= 0.01"),
    "cut that never comes": ('[[cut]]\nbetween = [["host0"], []]\nat_s = inf\nfor_s = 1', 5, "<= 1000000000"),
    "cut from nobody": (
        '[[cut]]\nbetween = [["host0", "host1", "host2"], []]\nat_s = 0\nfor_s = 1',
        4,
        "nobody is left",
    ),
    "no such host": ('[[host]]\nnames = ["host7"]', 4, "'host7' is not one of host0, host1, host2"),
    "host without a site": ('[[site]]\nname = "east"\nhosts = ["host0"]', 3, "'host1' is in no site"),
    "host in two sites": (
        '[[site]]\nname = "a"\nhosts = ["host0"]\n[[site]]\nname = "b"\nhosts = ["host0", "host1", "host2"]',
        8,
        "in two sites",
    ),
    "site that nothing connects": (
        '[[site]]\nname = "a"\nhosts = ["host0"]\n[[site]]\nname = "b"\nhosts = ["host1", "host2"]',
        6,
        "no pipe leads from site 'b' to site 'a'",
    ),
    "link to itself": ('[[link]]\nbetween = ["host1", "host1"]', 4, "with itself"),
    "two links": (
        '[[link]]\nbetween = ["host0", "host1"]\n[[link]]\nbetween = ["host1", "host0"]',
        6,
        "exists already",
    ),
    "trace of no wire": ('[[trace]]\non = ["host9.*"]\nat_s = [0]\nloss = [0]', 4, "matches none of"),
    "trace of nothing": ('[[trace]]\non = ["*"]\nat_s = [0]', 3, "changes none of"),
    "trace out of step": ('[[trace]]\non = ["*"]\nat_s = [0, 1]\nrate_mbit = [5]', 6, "pair up"),
    "trace backwards": ('[[trace]]\non = ["*"]\nat_s = [1, 0]\nrate_mbit = [5, 6]', 5, "ascend"),
    "trace too long to repeat": (
        '[[trace]]\non = ["*"]\nat_s = [0, 9]\nrate_mbit = [5, 6]\nevery_s = 9',
        7,
        "begins again before",
    ),
    "second trace is the bad one": (
        '[[trace]]\non = ["*"]\nat_s = [0]\nloss = [0]\n[[trace]]\non = ["*"]\nat_s = [0]\nloss = [-1]',
        10,
        ">= 0",
    ),
    "cut between nobody": ("[[cut]]\nbetween = [[], []]\nat_s = 0\nfor_s = 1", 4, "is empty"),
    "cut through a host": (
        '[[cut]]\nbetween = [["host0"], ["host0"]]\nat_s = 0\nfor_s = 1',
        4,
        "on both sides",
    ),
    "cut without an end": (
        '[[cut]]\nbetween = [["host0"], []]\nat_s = 0\nfor_s = 5\nevery_s = 5',
        7,
        "before it has ended",
    ),
    "traffic to nobody": ('[[background]]\nfrom = "host0"\nto = "x"\nrate_mbit = 1', 5, "is not one of"),
    "traffic to itself": ('[[background]]\nfrom = "host0"\nto = "host0"\nrate_mbit = 1', 5, "reach itself"),
    "half a rhythm": (
        '[[background]]\nfrom = "host0"\nto = "host1"\nrate_mbit = 1\non_s = 1',
        3,
        "go together",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_refused_with_line_and_reason(name: str) -> None:
    text, line, reason = MISTAKES[name]
    with pytest.raises(UsageError) as caught:
        parse(HEAD + text + "\n", "mine.toml")
    assert str(caught.value).startswith(f"mine.toml:{line}: ")
    assert reason in str(caught.value)


def test_a_file_that_is_no_toml_is_refused_with_the_line() -> None:
    with pytest.raises(UsageError, match=r"^mine.toml: .*line 3"):
        parse(HEAD + "[access\nrate_mbit = 5\n", "mine.toml")


def test_a_scenario_made_in_python_is_held_to_the_same_rules() -> None:
    with pytest.raises(ScenarioError, match="two hosts are called 'a'") as caught:
        network_of(Scenario(summary="", hosts=["a", "a"]))
    assert caught.value.path == ("hosts",)


def test_every_shipped_scenario_is_sound() -> None:
    assert set(shipped()) == {
        *("lan-1g", "office-100m", "wan-1g-100ms", "wan-100m-50ms", "home", "mobile", "one-slow-link"),
        *("two-sites", "fading", "flapping", "ten-megabit"),
    }


def test_scenarios_come_by_name_and_by_path(tmp_path: Path) -> None:
    assert load("home").access.up.rate_mbit == 20
    mine = tmp_path / "mine.toml"
    mine.write_text(HEAD)
    assert load(mine).host_names == ("host0", "host1", "host2")


@pytest.mark.parametrize("name", ["no-such", "../pyproject", "gone.toml"])
def test_unknown_scenarios_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"no scenario is called|cannot be read"):
        load(name)


def test_a_line_is_found_in_dotted_keys_and_inline_tables() -> None:
    text = "[a]\nb.c = 1\nd = { e = 2 }\n[[f]]\ng = 1\n[f.h]\ni = 2\n[[f]]\ng = 3\n"
    paths = (("a", "b", "c"), ("a", "d", "e"), ("f", 0, "h", "i"), ("f", 1, "g"), ("f", 1, "missing"))
    assert [line_of(text, path) for path in paths] == [2, 3, 7, 9, 8]


@pytest.mark.parametrize("num_hosts", [0, -1, 251])
def test_a_number_of_hosts_that_no_lab_has_is_refused(num_hosts: int) -> None:
    with pytest.raises(UsageError, match=r"scenario lan-1g: Expected `int` [<>]= \d+ - at `\$.hosts`"):
        Lab("lan-1g", num_hosts=num_hosts)


def test_values_made_in_python_are_looked_at_before_a_lab_is_built() -> None:
    with pytest.raises(UsageError, match=r"Expected `float` >= 0.0 - at `\$.access.delay_ms`"):
        Lab(Scenario(summary="", hosts=2, access=Access(delay_ms=-5)))
