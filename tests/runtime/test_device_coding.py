"""Sums that are encoded where their tensors lie: CPU tensors stand for a device's.

What encodes them there is the host's codec; once, if Triton is installed, its interpreter with the device's kernels.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributed import AllreduceOptions, ReduceOp

from tests.runtime.thread_ranks import groups_of, on_each
from thinwire.codec.base import Codec
from thinwire.codec.device.base import DeviceCodec, device_form
from thinwire.codec.text import parse
from thinwire.errors import UsageError
from thinwire.runtime import torch_calls
from thinwire.runtime.codec_memory import CodecMemory, TensorMemory
from thinwire.runtime.device_array import DeviceArray
from thinwire.runtime.device_staging import DeviceStaging, device_staging_for, works_on
from thinwire.runtime.process_group import ThinwireProcessGroup
from thinwire.runtime.torch_buffers import HostStaging, staging_for_sum
from thinwire.runtime.torch_calls import Coded


class OfHost(DeviceCodec):
    """A codec without state, with its kernels for the CPU."""

    def _encode(self, values: Tensor, residual: Tensor | None, payload: Tensor) -> None:
        array, encoded = values.numpy(), payload.numpy()
        if residual is None:
            self.codec.encode_into(array, (), 0, encoded, ())
        else:
            self.codec.encode_with_residual(array, residual.numpy(), (), 0, encoded, ())

    def _decode(self, payload: Tensor, out: Tensor, is_added: bool) -> None:
        decode = self.codec.add_decoded if is_added else self.codec.decode_into
        decode(payload.numpy(), out.numpy())


class Inline:
    """A coding stream of the CPU, on which everything is done at once."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.downloaded: list[int] = []
        self.told: list[object] = []

    def current(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()

    def lend(self, tensor: Tensor) -> object:
        return "written"

    def reach(self, moment: object) -> None:
        self.told.append(moment)

    def download(self, source: Tensor, target: memoryview) -> None:
        self.downloaded.append(len(target))
        target[:] = source.numpy().data

    def upload(self, source: memoryview) -> Tensor:
        return torch.frombuffer(bytearray(source), dtype=torch.uint8)

    def mark(self) -> object:
        return "the end"

    def let_caller_follow(self, moment: object) -> None:
        self.told.append(moment)


class OnDevice:
    """Makes the calls of chosen threads stage on a device.

    Attributes:
        form_of: what encodes there.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stream = Inline()
        self.form_of: Callable[[Codec], DeviceCodec | None] = OfHost
        self.threads: set[int] = set()
        monkeypatch.setattr(torch_calls, "staging_for_sum", self._staging)

    def _staging(
        self, name: str, tensors: Sequence[Tensor], codec: Codec | None
    ) -> DeviceStaging | torch_calls.ArrayStaging:
        if threading.get_ident() in self.threads and codec is not None:
            form = self.form_of(codec)
            assert form is not None
            return DeviceStaging(form, self.stream)
        return torch_calls.staging_for(name, tensors)


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> OnDevice:
    return OnDevice(monkeypatch)


def inputs(numel: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(numel, generator=torch.Generator().manual_seed(rank)).to(dtype) for rank in range(2)]


def reduced(
    codec: Codec, tensors: list[Tensor], memories: list[TensorMemory], which: OnDevice, ranks: Sequence[int]
) -> list[Tensor]:
    """The averages of two calls, of which those of ``ranks`` are made on the device."""
    options = AllreduceOptions()
    options.reduceOp = ReduceOp.AVG  # type: ignore[assignment]

    def work(group: ThinwireProcessGroup) -> Tensor:
        rank = group.rank()
        if rank in ranks:
            which.threads.add(threading.get_ident())
        results = []
        for _ in range(2):
            tensor = tensors[rank].clone()
            group.allreduce([tensor], options, Coded(codec, memories[rank])).wait()
            results.append(tensor)
        which.threads.discard(threading.get_ident())
        return torch.stack(results)

    with groups_of(2) as (groups, _):
        return on_each(groups, work)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("text", "numel", "dtype"),
    [
        ("quantize(bits=4)", 1_000_001, torch.float32),
        ("quantize(bits=8)", 3001, torch.bfloat16),
        ("cast(to=float16)", 3001, torch.float16),
        ("sign", 3001, torch.float32),
    ],
)
@pytest.mark.parametrize("ranks", [(0, 1), (1,)], ids=["all", "one of two"])
def test_the_result_and_what_is_owed_are_those_of_the_host(
    text: str, numel: int, dtype: torch.dtype, ranks: Sequence[int], on_device: OnDevice
) -> None:
    codec, tensors = parse(text), inputs(numel, dtype)
    memories, others = ([CodecMemory()["x"] for _ in range(2)] for _ in range(2))
    expected = reduced(codec, tensors, memories, on_device, ())
    assert not on_device.stream.downloaded
    found = reduced(codec, tensors, others, on_device, ranks)
    for result in (*found, expected[1]):
        assert torch.equal(result, expected[0])
    for memory, other in zip(memories, others, strict=True):
        np.testing.assert_array_equal(other.residual, memory.residual)
    # Two calls, and of each a contribution and a sum, which are the tensor together.
    payload = 2 * sum(codec.payload_bound((size,)) for size in (numel // 2, numel - numel // 2))
    assert abs(sum(on_device.stream.downloaded) - payload * len(ranks)) <= 4 * len(
        on_device.stream.downloaded
    )
    assert sorted(map(str, on_device.stream.told)) == sorted(["written", "the end"] * 2 * len(ranks))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is at hand: see test_process_group_cuda")
def test_the_kernels_bring_the_same_sums(on_device: OnDevice) -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    codec, tensors = parse("quantize(bits=4)"), inputs(5001)
    memories, others = ([CodecMemory()["x"] for _ in range(2)] for _ in range(2))
    expected = reduced(codec, tensors, memories, on_device, ())
    on_device.form_of = device_form
    found = reduced(codec, tensors, others, on_device, (0,))
    assert all(torch.equal(result, expected[0]) for result in found)
    np.testing.assert_array_equal(others[0].residual, memories[0].residual)


def test_what_is_owed_follows_the_calls_to_the_device_and_back(on_device: OnDevice) -> None:
    codec, tensors = parse("cast(to=bfloat16)"), inputs(2000)
    memories, others = ([CodecMemory()["x"] for _ in range(2)] for _ in range(2))
    for ranks in ((0, 1), (), (0, 1)):
        expected = reduced(codec, tensors, memories, on_device, ())
        found = reduced(codec, tensors, others, on_device, ranks)
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    saved, other = (each[0].state_dict() for each in (memories, others))
    assert torch.equal(saved["residual"], other["residual"])


def test_what_is_owed_cannot_be_read_while_a_call_uses_it_on_the_device() -> None:
    codec, memory = parse("cast(to=bfloat16)"), CodecMemory()["x"]
    memory.begin(codec, 3)
    memory.residual_beside(DeviceArray(torch.zeros(3), OfHost(codec), Inline()))
    with pytest.raises(UsageError, match="the memory 'x' cannot be brought to the host"):
        _ = memory.residual
    memory.end()
    assert memory.residual.tolist() == [0.0, 0.0, 0.0]


def test_where_triton_fails_the_host_encodes_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(OfHost):
        def _decode(self, payload: Tensor, out: Tensor, is_added: bool) -> None:
            raise RuntimeError("there is no C compiler")

    device, codec = torch.device("cpu"), parse("cast(to=bfloat16)")
    form = Failing(codec)
    assert works_on(device, OfHost(codec))
    assert not works_on(device, form)
    assert not works_on(device, form)
    (record,) = caplog.records
    reason = "because Triton failed on cpu: RuntimeError: there is no C compiler"
    assert record.getMessage() == f"cast(to=bfloat16) is encoded on the host, {reason}"


def test_tensors_of_the_host_and_codecs_without_a_device_form_are_encoded_on_the_host() -> None:
    assert isinstance(staging_for_sum("all_reduce", [torch.ones(3)], parse("sign")), HostStaging)
    assert device_staging_for([torch.ones(3)], parse("sign")) is None
    assert device_staging_for([torch.ones(3)], parse("low_rank(low_rank_dim=2)")) is None
