"""What torch promises around its collectives: works, futures, groups, objects, devices, mistakes."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from torch.distributed.device_mesh import init_device_mesh

from tests.system.world import World
from thinwire.errors import AbortedError, CollectiveTimeoutError, UsageError

pytestmark = pytest.mark.system

SIZE = 4
TOTAL = float(sum(range(SIZE)))


def mine(*shape: int) -> torch.Tensor:
    return torch.full(shape, float(dist.get_rank()))


def check_work_and_future() -> None:
    tensor = mine(3)
    work = dist.all_reduce(tensor, async_op=True)
    assert work.wait()
    assert work.is_completed()
    assert work.is_success()
    assert work.exception() is None
    assert work.result()[0] is tensor
    assert work.get_future().value()[0] is tensor
    outputs = [torch.zeros(2) for _ in range(SIZE)]
    gathered = dist.all_gather(outputs, mine(2), async_op=True).get_future().wait()
    assert [part[0].item() for part in gathered] == [0.0, 1.0, 2.0, 3.0]
    assert dist.barrier(async_op=True).get_future().wait() == []


def check_callbacks_may_communicate() -> None:
    """In the order of the calls, racing with the main thread, each waiting for calls of its own."""
    seen = []

    def note_and_reduce(number: int) -> Callable[[Any], float]:
        def callback(future: Any) -> float:
            seen.append(number)
            (total,) = dist.all_reduce(future.value()[0].clone(), async_op=True).get_future().wait()
            return total[0].item()

        return callback

    futures = []
    for number in range(20):
        future = dist.all_reduce(mine(2) + number, async_op=True).get_future()
        futures.append(future.then(note_and_reduce(number)).then(lambda future: future.value() + 1))
        dist.all_reduce(mine(2))
    totals = [future.wait() for future in futures]
    assert seen == list(range(20))
    assert totals == [SIZE * (TOTAL + SIZE * number) + 1 for number in range(20)]


def check_layouts() -> None:
    base = (torch.arange(24.0) + dist.get_rank()).reshape(2, 3, 4)
    strided = base.clone().transpose(0, 2)
    dist.all_reduce(strided)
    expected = (SIZE * torch.arange(24.0) + TOTAL).reshape(2, 3, 4).transpose(0, 2)
    assert torch.equal(strided, expected)
    assert not strided.is_contiguous()
    wide = torch.zeros(SIZE, 6)
    columns = [wide[:, column : column + 1] for column in range(SIZE)]
    dist.all_gather(columns, mine(SIZE, 1))
    assert torch.equal(wide[:, :SIZE], torch.arange(4.0).repeat(SIZE, 1))
    assert torch.equal(wide[:, SIZE:], torch.zeros(SIZE, 2))
    output = torch.zeros(2, SIZE).t()
    rows = torch.arange(8.0).reshape(SIZE, 2) + 10 * dist.get_rank()
    dist.all_to_all_single(output, rows)
    assert torch.equal(output[:, 0], 10 * torch.arange(4.0) + 2 * dist.get_rank())
    leaf = torch.nn.Parameter(mine(3))
    dist.broadcast(leaf, 2)
    assert leaf.tolist() == [2.0, 2.0, 2.0]


def check_unequal_blocks() -> None:
    rank = dist.get_rank()
    outputs = [torch.zeros(r + 1) for r in range(SIZE)]
    dist.all_gather(outputs, mine(rank + 1))
    assert [output.tolist() for output in outputs] == [[float(r)] * (r + 1) for r in range(SIZE)]
    output = torch.zeros(rank)
    dist.reduce_scatter(output, [torch.full((r,), float(rank)) for r in range(SIZE)])
    assert output.tolist() == [TOTAL] * rank


def check_coalescing() -> None:
    tensors = [mine(2), mine(3)]
    with dist.distributed_c10d._coalescing_manager(device=torch.device("cpu")):
        for tensor in tensors:
            dist.broadcast(tensor, 1, async_op=True)
    assert [tensor.tolist() for tensor in tensors] == [[1.0] * 2, [1.0] * 3]
    outputs = [torch.zeros(SIZE), torch.zeros(2 * SIZE)]
    with dist.distributed_c10d._coalescing_manager():
        for output in outputs:
            dist.all_gather_single(output, mine(output.numel() // SIZE))
    assert outputs[1].tolist() == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0]
    scattered = [torch.zeros(1), torch.zeros(2)]
    with dist.distributed_c10d._coalescing_manager():
        for output in scattered:
            dist.reduce_scatter_single(output, mine(SIZE * output.numel()))
    assert [output.tolist() for output in scattered] == [[TOTAL], [TOTAL, TOTAL]]


def check_objects() -> None:
    rank = dist.get_rank()
    gathered: list[Any] = [None] * SIZE
    dist.all_gather_object(gathered, {"rank": rank, "text": "x" * 10**rank})
    assert [item["rank"] for item in gathered] == list(range(SIZE))
    at_root: Any = [None] * SIZE if rank == 3 else None
    dist.gather_object(("tuple", rank), at_root, dst=3)
    assert at_root in (None, [("tuple", r) for r in range(SIZE)])
    objects: list[Any] = [1, {"two": 2}, [3]] if rank == 2 else [None] * 3
    dist.broadcast_object_list(objects, src=2)
    assert objects == [1, {"two": 2}, [3]]
    output: list[Any] = [None]
    dist.scatter_object_list(output, list("abcd") if rank == 0 else None, src=0)
    assert output == ["abcd"[rank]]
    if rank == 0:
        dist.send_object_list(["hello", 1], dst=1)
    elif rank == 1:
        received: list[Any] = [None, None]
        assert dist.recv_object_list(received, src=0) == 0
        assert received == ["hello", 1]


def check_messages() -> None:
    rank = dist.get_rank()
    if rank == 0:
        found = set()
        for _ in range(SIZE - 1):
            tensor = torch.zeros(2)
            source = dist.recv(tensor, tag=3)
            assert tensor.tolist() == [source, source]
            found.add(source)
        assert found == {1, 2, 3}
    else:
        dist.send(mine(2), 0, tag=3)
    right, left = (rank + 1) % SIZE, (rank - 1) % SIZE
    received = [torch.zeros(3), torch.zeros(3)]
    operations = [
        *(dist.P2POp(dist.irecv, tensor, left) for tensor in received),
        *(dist.P2POp(dist.isend, mine(3) + 10 * i, right) for i in range(2)),
    ]
    for work in dist.batch_isend_irecv(operations):
        work.wait()
    assert [tensor[0].item() for tensor in received] == [left, left + 10]
    to_myself, from_myself = mine(4), torch.zeros(4)
    sent = dist.isend(to_myself, rank, tag=9)
    receipt = dist.irecv(from_myself, rank, tag=9)
    assert sent.wait()
    assert receipt.wait()
    assert torch.equal(from_myself, to_myself)
    assert receipt.source_rank() == rank


def check_sparse() -> None:
    rank = dist.get_rank()
    indices = torch.tensor([[0, rank, rank], [1, 0, 0]])
    tensor = torch.sparse_coo_tensor(indices, torch.tensor([1.0, 2.0, 3.0]), (SIZE, 2), check_invariants=True)
    work = dist.all_reduce(tensor, async_op=True)
    total = work.get_future().wait()[0].to_dense()
    assert total.tolist() == [[5.0, SIZE], [5.0, 0.0], [5.0, 0.0], [5.0, 0.0]]
    dist.all_reduce(tensor, dist.ReduceOp.AVG)
    assert torch.equal(tensor.to_dense(), total)
    with pytest.raises(UsageError, match="adds or averages"):
        dist.all_reduce(tensor, dist.ReduceOp.MAX)


def check_functional() -> None:
    group = dist.group.WORLD
    rank = dist.get_rank()
    assert functional.all_reduce(mine(2), "sum", group).tolist() == [TOTAL, TOTAL]
    assert functional.all_reduce(mine(2), "avg", group).tolist() == [TOTAL / SIZE] * 2
    assert functional.broadcast(mine(2), 3, group).tolist() == [3.0, 3.0]
    assert functional.all_gather_tensor(mine(1), 0, group).tolist() == [0.0, 1.0, 2.0, 3.0]
    scattered = functional.reduce_scatter_tensor(mine(SIZE), "sum", 0, group)
    assert scattered.tolist() == [TOTAL]
    splits = [1] * SIZE
    exchanged = functional.all_to_all_single(mine(SIZE), splits, splits, group)
    assert exchanged.tolist() == [0.0, 1.0, 2.0, 3.0]
    both = functional.all_reduce_coalesced([mine(1), mine(2)], "max", group)
    assert [tensor.tolist() for tensor in both] == [[3.0], [3.0, 3.0]]
    gathered = functional.all_gather_into_tensor_coalesced([mine(1), mine(1)], group)
    assert [tensor.tolist() for tensor in gathered] == [[0.0, 1.0, 2.0, 3.0]] * 2
    reduced = functional.reduce_scatter_tensor_coalesced([mine(SIZE)], "sum", [0], group)
    assert [tensor.tolist() for tensor in reduced] == [[TOTAL]]
    differentiable = torch.full((2,), float(rank), requires_grad=True)
    dist.nn.functional.all_reduce(differentiable).sum().backward()
    assert differentiable.grad is not None
    assert differentiable.grad.tolist() == [SIZE, SIZE]


def check_groups() -> None:
    rank = dist.get_rank()
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "model"))
    column = mesh["data"].get_group()
    assert functional.all_reduce(mine(1), "sum", column).tolist() == [2.0 * (rank % 2) + 2]
    pair = [rank - rank % 2, rank - rank % 2 + 1]
    local = dist.new_group(pair, use_local_synchronization=True, group_desc="a pair")
    assert dist.get_process_group_ranks(local) == pair
    assert local.group_desc == "a pair"
    tensor = mine(1)
    dist.broadcast(tensor, group_src=1, group=local)
    assert tensor.item() == pair[1]
    three = dist.new_group([0, 1, 2])
    if rank < 3:
        tensor = mine(5)
        dist.all_reduce(tensor, group=three)
        assert tensor.tolist() == [3.0] * 5
        dist.destroy_process_group(three)
    again = dist.new_group([0, 1, 2])
    if rank < 3:
        dist.barrier(again)
    assert dist.get_backend() == "thinwire"
    assert dist.get_backend_config() == "cpu:thinwire,cuda:thinwire"


def check_split() -> None:
    rank, parent = dist.get_rank(), dist.group.WORLD
    split = parent.split_group(
        [1, 3], timeout=timedelta(seconds=9), group_name="odd", group_desc="the odd ones"
    )
    assert (split is not None) == (rank in (1, 3))
    if split is not None:
        tensor = mine(2)
        split.allreduce([tensor]).wait()
        assert tensor.tolist() == [4.0, 4.0]
        assert (split.rank(), split.size()) == (rank // 2, 2)
        assert (split.group_name, split.group_desc) == ("odd", "the odd ones")
        split.shutdown()
        with pytest.raises(AbortedError, match="destroyed"):
            split.allreduce([tensor]).wait()


def check_threads() -> None:
    """Each thread has a group of its own, and all work at once."""
    groups = [dist.new_group(list(range(SIZE))) for _ in range(4)]
    totals = [torch.zeros(1) for _ in groups]

    def work(index: int) -> None:
        for step in range(25):
            tensor = mine(index + 1) + step
            dist.all_reduce(tensor, group=groups[index])
            totals[index] += tensor[0]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(groups))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [total.item() for total in totals] == [25 * TOTAL + SIZE * sum(range(25))] * len(groups)
    for group in groups:
        dist.destroy_process_group(group)


def check_monitored_barrier() -> None:
    dist.monitored_barrier(timeout=timedelta(seconds=20))
    group = dist.new_group(list(range(SIZE)))
    rank = dist.get_rank()
    if rank not in (1, 3):
        with pytest.raises(CollectiveTimeoutError, match=r"rank 1, 3 of 4 failed to pass monitored_barrier"):
            dist.monitored_barrier(group, timedelta(seconds=0.5), wait_all_ranks=True)
    dist.barrier()
    if rank in (1, 3):  # too late: they are told so at once
        with pytest.raises(CollectiveTimeoutError, match=r"rank 1, 3 of 4"):
            dist.monitored_barrier(group, timedelta(seconds=20), wait_all_ranks=True)
    dist.monitored_barrier(group, timedelta(seconds=20))


def check_timeouts() -> None:
    group = dist.new_group(list(range(SIZE)), timeout=timedelta(seconds=15))
    if dist.get_rank() == 0:
        work = dist.barrier(group, async_op=True)
        with pytest.raises(CollectiveTimeoutError):
            work.wait(timedelta(milliseconds=50))
        dist.barrier()
        work.wait()
    else:
        dist.barrier()
        dist.barrier(group)


def check_mistakes() -> None:
    def refuses(sentence: str, call: Callable[[], object]) -> None:
        with pytest.raises(UsageError, match=re.escape(sentence)):
            call()

    ones = torch.ones(3)
    refuses("all_reduce takes CPU and CUDA tensors", lambda: dist.all_reduce(torch.ones(3, device="meta")))
    refuses("cannot compute with float8_e5m2", lambda: dist.all_reduce(ones.to(torch.float8_e5m2)))
    refuses("made by expand()", lambda: dist.all_reduce(torch.ones(1).expand(3)))
    refuses(
        "all_gather needs 4 outputs, found 3", lambda: dist.all_gather([ones.clone() for _ in range(3)], ones)
    )
    refuses("needs 12 elements in output", lambda: dist.all_gather_single(torch.ones(9), ones))
    refuses("needs tensors of one dtype", lambda: dist.all_gather_single(torch.ones(12), ones.double()))
    refuses("needs 12 elements in input", lambda: dist.reduce_scatter_single(ones, torch.ones(9)))
    refuses("3 rows, not a multiple of 4 ranks", lambda: dist.all_to_all_single(ones, ones))
    refuses("split sizes sum to 4", lambda: dist.all_to_all_single(ones, ones, [1] * 4, [1] * 4))
    refuses("on one device", lambda: dist.all_gather([torch.ones(3, device="meta")] * 4, ones))


CHECKS = [
    check_work_and_future,
    check_callbacks_may_communicate,
    check_layouts,
    check_unequal_blocks,
    check_coalescing,
    check_objects,
    check_messages,
    check_sparse,
    check_functional,
    check_groups,
    check_split,
    check_threads,
    check_monitored_barrier,
    check_timeouts,
    check_mistakes,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_semantics(world: World, check: Callable[[], None]) -> None:
    world.run(check)
