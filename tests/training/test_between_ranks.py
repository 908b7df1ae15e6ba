"""The quick probe and the rounds of messages, between ranks that are threads of one process."""

from __future__ import annotations

import pytest

from tests.runtime.thread_ranks import groups_of, on_each
from thinwire.clock import SYSTEM_CLOCK
from thinwire.errors import UsageError
from thinwire.training.group_speed import Speed, speed_of
from thinwire.training.looks import look
from thinwire.training.rounds import Rounds


def test_the_probe_gives_all_ranks_the_same_numbers() -> None:
    with groups_of(3) as (groups, _):
        speeds = on_each(list(groups), lambda group: speed_of(group.communicator("probe"), SYSTEM_CLOCK))
    assert len(set(speeds)) == 1
    speed = speeds[0]
    assert isinstance(speed, Speed)
    assert speed.latency_s > 0
    assert speed.bandwidth_bytes_per_s > 1e6


def test_everybody_hears_everybody() -> None:
    with groups_of(3) as (groups, _):
        rounds = [Rounds(group.communicator("rounds")) for group in groups]

        def talk(rank: int) -> list[bytes]:
            rounds[rank].begin(b"x" * rank, frame_bytes=64)
            assert rounds[rank].is_under_way
            heard = rounds[rank].finish()
            assert not rounds[rank].is_under_way
            return heard + rounds[rank].exchange(b"again", frame_bytes=9)

        assert on_each([0, 1, 2], talk) == [[b"", b"x", b"xx", b"again", b"again", b"again"]] * 3
        with pytest.raises(UsageError, match="does not fit"):
            rounds[0].begin(b"12345", frame_bytes=8)


def test_a_look_waits_for_nobody_and_ends_when_everybody_has_looked() -> None:
    with groups_of(3) as (groups, _):
        communicators = [group.communicator("looks") for group in groups]
        first = look(communicators[0], 100_000)
        assert not first.done()
        for job in (first, *(look(each, 100_000) for each in communicators[1:])):
            job.wait(10)
