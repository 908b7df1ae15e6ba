"""CUDA tensors: staged through the host, in order with the stream that is current in the call and in the wait; or
encoded where they are, in the same order."""

from __future__ import annotations

import pytest
import torch

from tests.runtime.thread_ranks import groups_of, on_each
from thinwire.codec.text import parse
from thinwire.runtime.codec_memory import CodecMemory
from thinwire.runtime.process_group import ThinwireProcessGroup
from thinwire.runtime.torch_calls import Coded

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SIZE = 1 << 20


def slow_ramp(group: ThinwireProcessGroup) -> torch.Tensor:
    """A tensor that is still being written when this returns."""
    tensor = torch.zeros(SIZE, device="cuda")
    torch.cuda._sleep(20_000_000)
    return tensor.add_(torch.arange(SIZE, device="cuda") % 100 + group.rank())


def test_what_the_current_stream_wrote_is_sent_and_what_it_reads_is_there() -> None:
    expected = 2.0 * (torch.arange(SIZE) % 100) + 1.0

    def work(group: ThinwireProcessGroup) -> bool:
        with torch.cuda.stream(torch.cuda.Stream()):
            tensor = slow_ramp(group)
            assert group.allreduce([tensor]).wait()
            return torch.equal((tensor + 0).cpu(), expected)

    with groups_of(2) as (groups, _):
        assert on_each(groups, work) == [True, True]


def test_futures_and_their_callbacks_are_in_order_with_the_copies() -> None:
    def work(group: ThinwireProcessGroup) -> float:
        future = group.allreduce([slow_ramp(group)]).get_future()
        return future.then(lambda done: (done.value()[0] * 2).max()).wait().item()

    with groups_of(2) as (groups, _):
        assert on_each(groups, work) == [2 * 199.0] * 2


def test_calls_on_both_kinds_of_tensors_keep_the_order_of_the_program() -> None:
    def work(group: ThinwireProcessGroup) -> tuple[list[float], list[float]]:
        on_device, on_host = slow_ramp(group), torch.full((3,), float(group.rank()))
        works = [group.broadcast([on_device]), group.allreduce([on_host]), group.barrier()]
        for item in works:
            item.wait()
        return on_device[:3].tolist(), on_host.tolist()

    with groups_of(2) as (groups, _):
        assert on_each(groups, work) == [([0.0, 1.0, 2.0], [1.0, 1.0, 1.0])] * 2


def test_blocks_and_messages_and_layouts() -> None:
    def work(group: ThinwireProcessGroup) -> list[list[float]]:
        output = torch.zeros(4, 2, device="cuda").t()
        group.all_gather_single(output, torch.full((1, 4), float(group.rank()), device="cuda")).wait()
        received = torch.zeros(2, dtype=torch.bfloat16, device="cuda")
        peer = 1 - group.rank()
        receipt = group.recv([received], peer)
        group.send([torch.full((2,), float(group.rank()), dtype=torch.bfloat16, device="cuda")], peer).wait()
        receipt.wait()
        assert receipt.source_rank() == peer
        return [*output.tolist(), received.tolist()]

    with groups_of(2) as (groups, _):
        assert on_each(groups, work) == [
            [[0.0] * 4, [1.0] * 4, [1.0, 1.0]],
            [[0.0] * 4, [1.0] * 4, [0.0, 0.0]],
        ]


@pytest.mark.parametrize("text", ["quantize(bits=4)", "quantize(bits=8)", "cast(to=bfloat16)"])
def test_what_is_encoded_on_the_device_is_what_the_host_encodes(text: str) -> None:
    pytest.importorskip("triton", reason="Triton is not installed")

    def reduced(device: str) -> list[torch.Tensor]:
        memories = [CodecMemory()["x"] for _ in range(2)]

        def work(group: ThinwireProcessGroup) -> torch.Tensor:
            results = []
            for step in range(3):
                generator = torch.Generator().manual_seed(10 * step + group.rank())
                tensor = torch.randn(SIZE, generator=generator).to(device)
                group.allreduce([tensor], coded=Coded(parse(text), memories[group.rank()])).wait()
                results.append((tensor + 0).cpu())
            return torch.stack([*results, torch.from_numpy(memories[group.rank()].residual)])

        with groups_of(2) as (groups, _):
            return on_each(groups, work)  # type: ignore[return-value]

    for on_device, on_host in zip(reduced("cuda"), reduced("cpu"), strict=True):
        assert torch.equal(on_device, on_host)
