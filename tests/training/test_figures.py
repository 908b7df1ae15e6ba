"""The line, the report, and where they go."""

from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console

from thinwire.training.agreement import Plan
from thinwire.training.figures import Figures, Report, Switch
from thinwire.training.ledger import LOOKS, Ledger
from thinwire.training.live import Display
from thinwire.training.meter import Measurement

FIGURES = Figures(
    step=240,
    step_s=0.0612,
    exposed_s=0.0012,
    hidden=0.97,
    plan=3,
    forms={"4 bits": 0.75, "exact": 0.25},
    bytes_sent=1_000_000,
    bytes_saved=9_500_000,
    bandwidth_bytes_per_s=12e6,
)
PLAN = Plan(number=3, forms=("4 bits",), reason="100 Mbit/s: 4 bits hides all but 1.2 ms")


def test_the_line() -> None:
    assert str(FIGURES) == "step 240  61.2 ms  97% hidden  4 bits 75%, exact 25%  9.06 MiB saved  96 Mbit/s"


def test_the_report_says_what_why_and_what_it_cost() -> None:
    report = Report(
        fidelity="auto",
        figures=FIGURES,
        sent={"4 bits": (1_000_000, 600_000), LOOKS: (0, 2_000_000)},
        exposed_s=0.5,
        switches=(Switch(step=9, plan=PLAN),),
        runners_up=("8 bits, 30 ms exposed",),
        error_corrected=0.02,
        residual_ratio=0.11,
        cosine=0.995,
        complaint="4 bits: the loss has risen from 1 to 2",
    )
    text = str(report)
    for part in (
        "fidelity auto",
        "step 240",
        "4 bits: 586 KiB, 4.8 bits for each value",
        "looks at the wire: 1.91 MiB\n",
        "exposed in all: 500 ms",
        "accuracy spent: 2 %",
        "residual is 0.11 times",
        "cosine of meant and sent 0.995",
        "from step 9: plan 3: 100 Mbit/s",
        "also considered: 8 bits, 30 ms exposed",
        "bits taken back: 4 bits",
    ):
        assert part in text, part


def test_looks_are_sent_and_save_nothing() -> None:
    ledger = Ledger(num_ranks=2)
    ledger.count_look(3000)
    ledger.count_look(1000)
    assert ledger.sent == {LOOKS: (0, 4000)}
    seen = ledger.figures(1, PLAN, Measurement(sizes=(8,), ready_s=(0.0,), step_s=1.0))
    assert (seen.bytes_sent, seen.bytes_saved, seen.forms) == (4000, -4000, {})


def test_a_terminal_shows_a_line_and_plans() -> None:
    screen = io.StringIO()
    display = Display(is_shown=True, console=Console(file=screen, force_terminal=True, width=120))
    display.show(FIGURES)
    display.announce(Switch(step=9, plan=PLAN))
    display.close()
    display.close()
    assert "97% hidden" in screen.getvalue()
    assert "thinwire: 100 Mbit/s" in screen.getvalue()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_silence_where_nobody_looks_or_nobody_wants_it(is_terminal: bool) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=is_terminal)
    display = Display(is_shown=not is_terminal, console=console)
    display.show(FIGURES)
    display.announce(Switch(step=9, plan=PLAN))
    display.close()
    assert screen.getvalue() == ""


def test_the_same_through_logging(caplog: pytest.LogCaptureFixture) -> None:
    display = Display(is_shown=False)
    with caplog.at_level(logging.DEBUG, logger="thinwire.training"):
        display.show(FIGURES)
        display.announce(Switch(step=9, plan=PLAN))
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("DEBUG", str(FIGURES)),
        ("INFO", "step 9, plan 3: 100 Mbit/s: 4 bits hides all but 1.2 ms"),
    ]
