"""How a bucket travels in its form, and what is remembered of it: what is owed, the bases of factors, how well it went.

A gradient that is not finite is sent beside the coded one, as a flag: every rank then gets NaN in that bucket, so that
GradScaler skips the step everywhere, and no residual keeps it.

Not here: which form, and when (``link``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.futures import Future

from thinwire.codec.base import Floats
from thinwire.codec.low_rank import LowRank
from thinwire.planner.forms import Form
from thinwire.planner.guard import Evidence
from thinwire.runtime.codec_memory import TensorMemory
from thinwire.runtime.operation import CallOptions
from thinwire.runtime.process_group import ThinwireProcessGroup
from thinwire.runtime.work import ThinwireWork
from thinwire.training.low_rank_sum import LowRankSum, Piece
from thinwire.training.residuals import Layout, Residuals
from thinwire.training.sample import Sample


class Sender:
    """Of one model's buckets, over one group.

    Attributes:
        evidence: of the last bucket that was sampled.
    """

    def __init__(self, group: ThinwireProcessGroup) -> None:
        self._group = group
        self._residuals = Residuals()
        self._low_rank_sum = LowRankSum(group)
        self.evidence = Evidence()

    def average(
        self, values: Tensor, pieces: Sequence[Piece], form: Form, *, is_sampled: bool
    ) -> Future[Any]:
        """All ranks' average of a bucket.

        Args:
            values: its gradients, flat; overwritten.
            pieces: the parameters that they belong to.
            is_sampled: whether ``evidence`` is to be taken of it.

        Returns:
            The future of a list of one tensor, like ``values``.
        """
        layout = [(piece.name, piece.part.stop - piece.part.start) for piece in pieces]
        codec = form.codec
        if codec is None:
            return self._average_exactly(values, layout)
        if isinstance(codec, LowRank):
            return self._average_factored(values, pieces, layout, codec, is_sampled=is_sampled)

        def send(memory: TensorMemory) -> ThinwireWork:
            options = CallOptions(codec=codec, memory=memory)
            return self._group.all_reduce_apart("coded gradients", values, options, average=True)

        return self.send_coded(values, layout, send, is_sampled=is_sampled)

    def pay(self, values: Tensor, layout: Layout) -> None:
        """Add what is owed to a bucket."""
        owed = self._residuals.take(layout)
        if owed is not None:
            values.add_(torch.from_numpy(owed).to(values))

    def send_coded(
        self,
        values: Tensor,
        layout: Layout,
        send: Callable[[TensorMemory], ThinwireWork],
        *,
        is_sampled: bool,
    ) -> Future[Any]:
        """What ``send`` brings of these values with this memory; NaN on all ranks if one has a value not finite."""
        memory = self._residuals.of_bucket(layout)
        flag = torch.zeros(1, dtype=torch.float32)
        if not bool(torch.isfinite(values.sum(dtype=torch.float32))):
            flag.fill_(torch.nan)
            values.zero_()
        sample = Sample(_on_host(values), memory.residual) if is_sampled else None
        work = send(memory)
        flagged = self._group.allreduce([flag])

        def arrived(done: Future[Any]) -> list[Tensor]:
            result: list[Tensor] = done.value()
            if sample is not None:
                self.evidence = sample.evidence(memory.residual)
            flagged.wait()
            if torch.isnan(flag).any():
                result[0].fill_(torch.nan)
            return result

        future: Future[list[Tensor]] = work.get_future().then(arrived)
        return future

    def state_dict(self) -> dict[str, Any]:
        """What is owed, and the bases, as ``torch.save`` takes them."""
        return {"residuals": self._residuals.state_dict(), "bases": self._low_rank_sum.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with these. Raises UsageError or KeyError if this is not what ``state_dict`` returned."""
        self._residuals.load_state_dict(state_dict["residuals"])
        self._low_rank_sum.load_state_dict(state_dict["bases"])

    def _average_exactly(self, values: Tensor, layout: Layout) -> Future[Any]:
        """As DistributedDataParallel does without a hook, bit for bit; and what was still owed is paid."""
        self.pay(values, layout)
        values.mul_(1.0 / self._group.size())
        future: Future[Any] = self._group.allreduce([values]).get_future()
        return future

    def _average_factored(
        self, values: Tensor, pieces: Sequence[Piece], layout: Layout, codec: LowRank, *, is_sampled: bool
    ) -> Future[Any]:
        """As thin factors."""
        memory = self._residuals.of_bucket(layout)
        on_host = torch.from_numpy(_on_host(values))
        sample = Sample(on_host.numpy(), memory.residual) if is_sampled else None
        average = self._low_rank_sum.average(on_host, pieces, codec.low_rank_dim, memory.residual)

        def arrived(done: Future[Any]) -> list[Tensor]:
            result: list[Tensor] = done.value()
            if sample is not None:
                self.evidence = sample.evidence(memory.residual)
            if result[0].data_ptr() != values.data_ptr():
                values.copy_(result[0])
            return [values]

        return average.then(arrived)


def _on_host(values: Tensor) -> Floats:
    array: Floats = values.detach().to("cpu", torch.float32).flatten().numpy()
    return array
