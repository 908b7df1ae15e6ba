"""Process groups whose ranks are threads of one process, over memory."""

from __future__ import annotations

from datetime import timedelta

import pytest
import torch

from tests.runtime.thread_ranks import groups_of, on_each
from thinwire.errors import AbortedError, CollectiveTimeoutError, PeerError, UsageError
from thinwire.runtime.operation import CallOptions
from thinwire.runtime.process_group import ThinwireProcessGroup


def total(group: ThinwireProcessGroup) -> float:
    tensor = torch.full((10,), float(group.rank()))
    group.allreduce([tensor]).wait()
    return tensor[9].item()


def test_ranks_as_threads() -> None:
    with groups_of(5) as (groups, _):
        assert on_each(groups, total) == [10.0] * 5


def test_it_says_who_it_is() -> None:
    with groups_of(1) as ([group], _):
        assert (group.rank(), group.size(), group.name()) == (0, 1, "thinwire")
        group._set_group_name("a name")
        group._set_group_desc("a description")
        assert (group.group_name, group.group_desc) == ("a name", "a description")
        assert torch.device("cpu") in group._device_types
        assert group._get_backend(torch.device("cuda")) is group
        with pytest.raises(UsageError, match="no backend for meta"):
            group._get_backend(torch.device("meta"))


def test_a_group_has_its_own_options() -> None:
    with groups_of(3, CallOptions(algorithm="ring")) as (groups, _):
        assert on_each(groups, total) == [3.0] * 3
    with (
        groups_of(3, CallOptions(algorithm="no such algorithm")) as (groups, _),
        pytest.raises(UsageError, match="no such algorithm"),
    ):
        total(groups[0])


def test_the_timeout_of_the_group_holds_until_it_is_set() -> None:
    with groups_of(1) as ([group], _):
        assert group._call_options().timeout_s == 20.0
        group._set_default_timeout(timedelta(seconds=7))
        assert group._call_options().timeout_s == 7.0
        opts = torch._C._distributed_c10d.BarrierOptions()
        assert group._call_options(opts).timeout_s == 7.0
        opts.timeout = timedelta(seconds=3)
        assert group._call_options(opts).timeout_s == 3.0


def test_a_closed_group_refuses() -> None:
    with groups_of(2) as (groups, _):
        on_each(groups, total)
        groups[0].shutdown()
        with pytest.raises(AbortedError, match="destroyed"):
            total(groups[0])
        with pytest.raises(AbortedError, match="destroyed"):
            groups[0].monitored_barrier()
        groups[0].shutdown()


def test_abort_ends_what_others_wait_for() -> None:
    with groups_of(2) as (groups, _):
        on_each(groups, total)
        work = groups[1].barrier()
        groups[0].abort()
        with pytest.raises(AbortedError, match="abort"):
            work.wait()


def test_a_death_is_noticed_by_work_and_future() -> None:
    with groups_of(3) as (groups, network):
        on_each(groups, total)
        works = [group.barrier() for group in groups[:2]]
        futures = [work.get_future().then(lambda done: done.value()) for work in works]
        network.kill(2)
        for work, future in zip(works, futures, strict=True):
            with pytest.raises(PeerError, match="rank 2 on memory"):
                work.wait()
            with pytest.raises(PeerError, match="rank 2 on memory"):
                future.wait()
            assert not work.is_success()
            assert isinstance(work.exception(), PeerError)


def test_monitored_barrier_names_the_first_or_all() -> None:
    with groups_of(4) as (groups, _):
        on_each(groups, lambda group: group.monitored_barrier())

        def complaint(group: ThinwireProcessGroup, wait_all_ranks: bool) -> str:
            with pytest.raises(CollectiveTimeoutError) as raised:
                group.monitored_barrier(timedelta(seconds=0.2), wait_all_ranks)
            return str(raised.value)

        came = [groups[0], groups[2]]
        (first, second) = on_each(came, lambda group: complaint(group, False))
        assert first == second == "rank 1 of 4 failed to pass monitored_barrier in 0.2 s"
        (first, second) = on_each(came, lambda group: complaint(group, True))
        assert first == second == "rank 1, 3 of 4 failed to pass monitored_barrier in 0.2 s"


def test_monitored_barrier_without_rank_zero() -> None:
    with groups_of(2) as (groups, _), pytest.raises(CollectiveTimeoutError, match="rank 0 of 2 failed"):
        groups[1].monitored_barrier(timedelta(seconds=0.1))


def test_groups_split_without_a_store() -> None:
    with groups_of(4) as (groups, _):

        def split_and_sum(group: ThinwireProcessGroup) -> tuple[int, float] | None:
            parts = [group.split_group([3, 0]), group.split_group([1, 2])]
            mine = next(part for part in parts if part is not None)
            sum_of_ranks = torch.tensor([float(group.rank())])
            mine.allreduce([sum_of_ranks]).wait()
            mine.shutdown()
            return mine.rank(), sum_of_ranks.item()

        assert on_each(groups, split_and_sum) == [(1, 3.0), (0, 3.0), (1, 3.0), (0, 3.0)]


def test_the_outputs_of_a_call_may_not_be_contiguous() -> None:
    with groups_of(2) as (groups, _):

        def gather(group: ThinwireProcessGroup) -> list[list[float]]:
            output = torch.zeros(3, 4)
            future = group.all_gather_single(
                output[:, ::2], torch.full((3,), 1.0 + group.rank())
            ).get_future()
            assert future.wait()[0].shape == (3, 2)
            return output.tolist()

        expected = [[1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 2.0, 0.0], [2.0, 0.0, 2.0, 0.0]]
        assert on_each(groups, gather) == [expected] * 2
