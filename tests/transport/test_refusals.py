"""What is refused is counted always, and logged now and then."""

from __future__ import annotations

import pytest

from thinwire.transport.refusals import Refusals


class Clock:
    def __init__(self) -> None:
        self.time_s = 1000.0

    def now_s(self) -> float:
        return self.time_s


def test_a_flood_of_refusals_is_one_line_a_second(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    refusals = Refusals(clock)
    for number in range(100):
        refusals.count("frame", f"peer {number}", "nonsense")
    refusals.count("secret", "10.0.0.9:77", "a guess")
    clock.time_s += 1.0
    refusals.count("frame", "peer 100", "more nonsense")
    assert caplog.messages == [
        "refused peer 0 (frame): nonsense",
        "refused 10.0.0.9:77 (secret): a guess",
        "refused peer 100 (frame): more nonsense; 99 more since",
    ]
    assert refusals.counts() == {"frame": 101, "secret": 1}
