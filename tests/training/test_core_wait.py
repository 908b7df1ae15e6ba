"""What a codec costs the training follows from how much of its time the training waits for a core."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch

from thinwire.training.core_wait import CoreWait, Counted, counted


def watch_of(looks: Iterable[Counted | None]) -> CoreWait:
    looks = list(looks)
    told = iter(looks)
    watch = CoreWait(lambda: next(told))
    for _ in looks:
        watch.look()
    return watch


def steps(ran_ns: int, waited_ns: int, num_steps: int = 20) -> list[Counted]:
    return [Counted(step * ran_ns, step * waited_ns) for step in range(num_steps)]


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thinwire.training.core_wait.os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("waited_ns", "contention"), [(0, 0.0), (10, 0.4), (100, 2.0), (300, 4.0), (10_000, 5.0)]
)
def test_codecs_cost_more_the_longer_the_training_waits(waited_ns: int, contention: float) -> None:
    assert watch_of(steps(100, waited_ns)).contention == pytest.approx(contention, rel=0.1)


@pytest.mark.usefixtures("one_thread")
def test_only_the_last_steps_count() -> None:
    crowded = steps(100, 100)
    alone = [Counted(crowded[-1].ran_ns + step * 100, crowded[-1].waited_ns) for step in range(1, 20)]
    assert watch_of([*crowded, *alone]).contention == 0


@pytest.mark.usefixtures("one_thread")
def test_another_thread_is_not_compared_with_the_one_before() -> None:
    assert watch_of([Counted(9_000, 9_000), *steps(100, 0)]).contention == 0


@pytest.mark.usefixtures("one_thread")
def test_where_nothing_is_counted_threads_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watch_of([None] * 5).contention == 0
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert watch_of([None] * 5).contention == 1


def test_the_kernel_counts_what_this_thread_computes() -> None:
    before = counted()
    if before is None:
        pytest.skip("this kernel does not count")
    sum(range(10**6))
    after = counted()
    assert after is not None
    assert after.ran_ns > before.ran_ns
