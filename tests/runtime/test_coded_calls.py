"""Encoded collectives of groups whose ranks are threads: the torch side of them, and the bytes whatever threads do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributed import ReduceOp, ReduceScatterOptions

from tests.codecs import Deflated, Half, Noisy
from tests.runtime.thread_ranks import groups_of, on_each
from thinwire.codec.base import Codec
from thinwire.codec.plain import Plain
from thinwire.errors import UsageError
from thinwire.runtime.codec_memory import CodecMemory
from thinwire.runtime.coding import Coding
from thinwire.runtime.process_group import ThinwireProcessGroup
from thinwire.runtime.torch_calls import Coded
from thinwire.trace import Recorder

SIZE = 4


def inputs(numel: int) -> list[torch.Tensor]:
    return [torch.randn(numel, generator=torch.Generator().manual_seed(rank)) for rank in range(SIZE)]


@pytest.mark.parametrize("codec", [Half(), Noisy(), Deflated()], ids=str)
def test_threads_do_not_change_the_bytes(codec: Codec) -> None:
    results = set()
    for _ in range(3):
        with groups_of(SIZE) as (groups, _):
            tensors = inputs(300_000)
            memories = [CodecMemory()["x"] for _ in groups]

            def reduce(
                group: ThinwireProcessGroup, tensors: object = tensors, memories: object = memories
            ) -> None:
                rank = group.rank()
                group.allreduce([tensors[rank]], coded=Coded(codec, memories[rank])).wait()  # type: ignore[index]

            on_each(groups, reduce)
            results |= {tensor.numpy().tobytes() for tensor in tensors}
    assert len(results) == 1


def test_a_scatter_of_sums_encodes_contributions_only() -> None:
    """The owner's own contribution, and the sum, stay as they are."""
    whole = inputs(1000 * SIZE)
    outputs = [torch.empty(1000) for _ in range(SIZE)]
    options = ReduceScatterOptions()
    options.reduceOp = ReduceOp.AVG  # type: ignore[assignment]
    with groups_of(SIZE) as (groups, _):
        on_each(
            groups,
            lambda group: group.reduce_scatter_single(
                outputs[group.rank()], whole[group.rank()], options, Coded(Half())
            ).wait(),
        )
    for rank, output in enumerate(outputs):
        block = slice(1000 * rank, 1000 * rank + 1000)
        expected = whole[rank][block].clone()
        for other in sorted(range(SIZE), key=lambda other: (rank - other) % SIZE):
            if other != rank:
                expected += whole[other][block].half().float()
        torch.testing.assert_close(output, expected / SIZE, rtol=0, atol=0)


def test_a_gather_gives_everybody_the_same_own_block_included() -> None:
    blocks = inputs(1001)
    outputs = [torch.empty(1001 * SIZE) for _ in range(SIZE)]
    with groups_of(SIZE) as (groups, _):
        on_each(
            groups,
            lambda group: group.all_gather_single(
                outputs[group.rank()], blocks[group.rank()], None, Coded(Half())
            ).wait(),
        )
    expected = torch.cat(blocks).half().float()
    for output in outputs:
        assert torch.equal(output, expected)


def test_the_trace_says_what_was_sent_and_as_what() -> None:
    with groups_of(2) as (groups, _):
        recorder = Recorder()
        groups[0]._endpoint.recorder = recorder
        on_each(groups, lambda group: group.allreduce([torch.zeros(5000)], coded=Coded(Half())).wait())
        on_each(groups, lambda group: group.allreduce([torch.zeros(5000)]).wait())
        spans = [span for span in recorder.trace(0, "host").spans if "all_reduce" in span.name]
    encoded, exact = (span.arguments for span in spans)
    # Half the elements to the other rank, and the other half's sum: each in one frame with its header.
    assert (encoded["codec"], encoded["wire_bytes_sent"]) == ("half()", 2 * (2 * 2500 + 40))
    assert exact["codec"] == "exact"
    assert int(exact["wire_bytes_sent"]) >= 20_000


def test_what_is_owed_passes_to_a_codec_with_feedback_of_its_own() -> None:
    class OwnFeedback(Plain):
        is_lossless = False
        has_feedback = True

    memory = CodecMemory()["x"]
    noisy = Coding(Noisy(1.0), memory, 3, rank=0, number=0)
    noisy.encode(np.zeros(3, np.float32), 0, memoryview(bytearray(12)))
    noisy.end()
    owed = memory.residual.copy()
    assert owed.any()
    payload = memoryview(bytearray(12))
    Coding(OwnFeedback(), memory, 3, rank=0, number=0).encode(np.ones(3, np.float32), 0, payload)
    np.testing.assert_array_equal(np.frombuffer(payload, np.float32), 1 + owed)
    assert not memory.residual.any()
    with pytest.raises(UsageError, match="cannot be emptied"):
        memory.take_residual()
