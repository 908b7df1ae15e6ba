"""The parts of a process group: lanes, futures, arrays of tensors, messages to oneself, registration."""

from __future__ import annotations

import threading
from typing import cast

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch._jit_internal import _extract_tensors

from thinwire.errors import AbortedError, CollectiveTimeoutError, MismatchError, PeerError, UsageError
from thinwire.runtime import registration
from thinwire.runtime.communicator import Communicator
from thinwire.runtime.futures import StrandFuture, calling_callbacks_of
from thinwire.runtime.job import Job
from thinwire.runtime.lanes import Completion, InOrder, Lane, all_of
from thinwire.runtime.loopback import Loopback
from thinwire.runtime.strand import Call, Strand
from thinwire.runtime.torch_buffers import HostStaging, array_of, dtype_of, staging_for

# Lanes ----------------------------------------------------------------------------------------------------------


def test_a_lane_keeps_the_order_and_ends() -> None:
    lane, seen = Lane(), []
    ended = threading.Event()
    for number in range(100):
        lane.submit(lambda number=number: seen.append(number))
    lane.submit(ended.set)
    lane.close()
    assert ended.wait(10)
    assert seen == list(range(100))


def test_a_closed_lane_starts_again() -> None:
    lane, ended = Lane(), threading.Event()
    lane.close()
    lane.submit(ended.set)
    assert ended.wait(10)
    lane.close()


def test_a_completion_is_waited_for_like_a_job() -> None:
    end = Completion()
    with pytest.raises(CollectiveTimeoutError, match=r"did not end within 0\.001 s"):
        end.wait(0.001)
    job = Job("recv")
    job.source = 3
    job.finish(CollectiveTimeoutError("timed out by itself"))
    end.end_after(job)
    assert end.source == 3
    with pytest.raises(CollectiveTimeoutError, match="timed out by itself"):
        end.wait(1.0)


def test_all_of_ends_with_the_last_and_the_first_error() -> None:
    jobs = [Job("a"), Job("b"), Job("c")]
    together = all_of(jobs)
    jobs[2].finish(AbortedError("c failed"))
    jobs[0].finish()
    assert not together.done()
    jobs[1].finish(AbortedError("b failed"))
    with pytest.raises(AbortedError, match="b failed"):
        together.wait()
    all_of([]).wait()


def test_what_is_done_in_order_waits_for_its_own_end_and_for_what_came_before() -> None:
    queue, jobs, seen = InOrder(), [Job("a"), Job("b"), Job("c")], list[str]()
    done = [threading.Event() for _ in jobs]
    for job, event in zip(jobs, done, strict=True):
        queue.after(job, lambda job=job, event=event: (seen.append(job.description), event.set()))
    jobs[1].finish()
    jobs[2].finish()
    assert not any(event.is_set() for event in done)
    jobs[0].finish(AbortedError("an error is an end too"))
    assert all(event.wait(10) for event in done)
    late = threading.Event()
    queue.after(jobs[1], late.set)
    assert late.wait(10)
    queue.close()
    assert seen == ["a", "b", "c"]


# Futures --------------------------------------------------------------------------------------------------------


def test_callbacks_know_their_strand_on_any_thread() -> None:
    future = StrandFuture("a strand", [])
    before = future.then(lambda done: calling_callbacks_of()).then(
        lambda done: (done.value(), calling_callbacks_of())
    )
    threading.Thread(target=future.set_result, args=(1,)).start()
    assert before.wait() == ("a strand", "a strand")
    after = future.then(lambda done: calling_callbacks_of())
    assert after.wait() == "a strand"
    seen: list[str] = []
    future.add_done_callback(lambda done: seen.append(calling_callbacks_of()))
    assert seen == ["a strand"]
    assert calling_callbacks_of() == ""


def test_an_error_keeps_its_type_down_the_chain() -> None:
    future = StrandFuture("a strand", [])
    last = future.then(lambda done: done.value()).then(lambda done: done.value())
    future.set_exception(PeerError(1, "host", "died"))
    for failed in (future, last):
        with pytest.raises(PeerError, match="rank 1 on host: died"):
            failed.wait()
    caught = future.then(lambda done: "went on")
    assert caught.wait() == "went on"


def test_cpp_gets_the_error_and_not_an_empty_list_of_tensors() -> None:
    """To find the tensors in a future's value, torch's C++ calls ``_extract_tensors``."""
    future = StrandFuture("a strand", [])
    future.set_exception(PeerError(1, "host", "died"))
    values: list[object] = []
    future._set_unwrap_func(values.append)
    future.value()
    with pytest.raises(PeerError, match="rank 1 on host: died"):
        _extract_tensors(values[0])


# Arrays ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool, torch.complex64, torch.uint16])
def test_an_array_shares_memory_with_its_tensor(dtype: torch.dtype) -> None:
    tensor = torch.ones((2, 3), dtype=dtype)
    array = array_of(tensor)
    assert array.dtype == dtype_of(dtype).storage
    assert array.shape == (6,)
    array[:] = 0
    assert not tensor.any()


def test_types_that_only_torch_knows_are_bytes() -> None:
    tensor = torch.ones(4, dtype=torch.float8_e4m3fn)
    assert array_of(tensor).dtype == np.uint8
    assert dtype_of(tensor.dtype).name == "uint8"


def test_a_staging_copies_only_what_it_must() -> None:
    staging = HostStaging()
    base = torch.arange(6.0).reshape(2, 3)
    assert np.shares_memory(staging.read(base), base.numpy())
    assert not staging.needs_finish
    array = staging.update(base.t())
    assert array.tolist() == [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]
    array += 1
    assert staging.needs_finish
    staging.finish()
    assert base.tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    conjugate = torch.tensor([1 + 2j]).conj()
    assert staging.read(conjugate).tolist() == [1 - 2j]


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_tensors_out_of_reach_are_refused() -> None:
    with pytest.raises(UsageError, match=r"broadcast takes CPU and CUDA tensors, found one on meta"):
        staging_for("broadcast", [torch.ones(1, device="meta")])
    with pytest.raises(UsageError, match=r"on one device, found cpu and meta"):
        staging_for("broadcast", [torch.ones(1), torch.ones(1, device="meta")])
    with pytest.raises(UsageError, match=r"dense tensors, found sparse_coo: call \.to_dense\(\)"):
        staging_for("broadcast", [torch.eye(2).to_sparse()])
    with pytest.raises(UsageError, match=r"call \.clone\(\) first"):
        HostStaging().write(torch.ones(1).expand(3))


# Strands --------------------------------------------------------------------------------------------------------


class SlowStaging(HostStaging):
    """Like one of CUDA tensors: it takes its time to bring them, and has something to do at the end."""

    needs_begin = True
    needs_finish = True  # type: ignore[assignment]

    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self.arrived = threading.Event()
        self.log = log

    def begin(self) -> None:
        self.arrived.wait()
        self.log.append("begun")

    def finish(self) -> None:
        self.log.append("finished")


class NoCommunicator:
    """Calls get it and do not use it."""

    def close(self) -> None:
        pass


def test_calls_behind_a_slow_tensor_keep_their_order() -> None:
    log: list[str] = []
    strand = Strand(cast(Communicator, NoCommunicator()), "a strand")

    def call(name: str, error: Exception | None = None) -> Call:
        def begin(_: Communicator) -> Job:
            if error is not None:
                raise error
            log.append(name)
            job = Job(name)
            job.finish()
            return job

        return begin

    strand.launch(call("at once"), HostStaging()).wait()
    slow = SlowStaging(log)
    ends = [
        strand.launch(call("slow"), slow),
        strand.launch(call("behind"), HostStaging()),
        strand.launch(call("wrong", UsageError("a wrong call")), HostStaging()),
    ]
    assert not any(end.done() for end in ends)
    slow.arrived.set()
    ends[0].wait()
    ends[1].wait()
    with pytest.raises(UsageError, match="a wrong call"):
        ends[2].wait()
    assert [item for item in log if item != "finished"] == ["at once", "begun", "slow", "behind"]
    assert log.index("finished") > log.index("slow")
    strand.close()


# Messages to oneself --------------------------------------------------------------------------------------------


def test_messages_to_oneself_match_by_tag_in_order() -> None:
    loopback = Loopback(rank=5)
    sent = [loopback.send(np.full(2, float(number)), tag=number % 2) for number in range(4)]
    assert not sent[0].done()
    targets = [np.zeros(2) for _ in range(4)]
    received = [loopback.recv(targets[number], tag=1 - number % 2) for number in range(4)]
    assert [target[0] for target in targets] == [1.0, 0.0, 3.0, 2.0]
    assert all(end.done() for end in sent + received)
    assert received[0].source == 5


def test_a_message_to_oneself_must_fit() -> None:
    loopback = Loopback(rank=0)
    received = loopback.recv(np.zeros(3), tag=0)
    sent = loopback.send(np.zeros(2), tag=0)
    for end in (sent, received):
        with pytest.raises(MismatchError, match="sent 16 bytes to itself and received 24"):
            end.wait()


# Registration ---------------------------------------------------------------------------------------------------


def test_registering_again_changes_nothing() -> None:
    registration.register()
    before = dist.monitored_barrier, dist.Backend._plugins["THINWIRE"]
    registration.register()
    assert (dist.monitored_barrier, dist.Backend._plugins["THINWIRE"]) == before


def test_monitored_barrier_of_other_backends_is_torchs_own() -> None:
    registration.register()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        dist.monitored_barrier()
    finally:
        dist.destroy_process_group()


def test_only_gloo_can_be_replaced() -> None:
    with pytest.raises(UsageError, match="cannot replace 'nccl': only 'gloo' can be"):
        registration.replace("nccl")
