"""What was measured of a job, as values: the buckets of its backward pass, its compute, and the wire between its ranks.

Not here: measuring (``training``, ``probe``), and what follows from it (``cost``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from thinwire.codec.base import Shape
from thinwire.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """One bucket of gradients.

    Attributes:
        num_values: float32 values in it.
        ready_s: when it is ready to be sent, seconds after the backward pass begins.
        shapes: of its tensors, as far as they are known: what has none is not factored.
    """

    num_values: int
    ready_s: float
    shapes: tuple[Shape, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One step of training, without its communication.

    Attributes:
        buckets: in the order in which they become ready.
        backward_s: length of the backward pass: nothing is exposed before its end.
        step_s: length of the step.
        shown_s: what steps last now, with all that the plan in force exposes, whatever for; 0: not known.
        num_ranks: that reduce together.
        codec_contention: how much of a codec's CPU time the training loses: 0 where a core is free, 1 where none is.
    """

    buckets: tuple[Bucket, ...]
    backward_s: float
    step_s: float
    num_ranks: int
    codec_contention: float = 1.0
    shown_s: float = 0.0

    def __post_init__(self) -> None:
        ready = [bucket.ready_s for bucket in self.buckets]
        if ready != sorted(ready) or (ready and not 0 <= ready[0] <= ready[-1] <= self.backward_s):
            raise UsageError(
                f"buckets must become ready one after the other within the backward pass, not at {ready}"
            )


@dataclass(frozen=True, kw_only=True)
class Wire:
    """What connects the ranks.

    Attributes:
        rank_bytes_per_s: of each rank, what it can send to all others together; 2 ranks or more.
        rtt_s: the longest round trip.
    """

    rank_bytes_per_s: tuple[float, ...]
    rtt_s: float = 0.0

    def __post_init__(self) -> None:
        if not self.rank_bytes_per_s or not min(self.rank_bytes_per_s) > 0:
            raise UsageError(f"every rank needs a positive bandwidth, found {self.rank_bytes_per_s}")

    @property
    def bottleneck_bytes_per_s(self) -> float:
        return min(self.rank_bytes_per_s)

    def scaled(self, factor: float) -> Wire:
        """The same wire with every bandwidth multiplied.

        >>> Wire(rank_bytes_per_s=(2.0, 4.0)).scaled(0.5).rank_bytes_per_s
        (1.0, 2.0)
        """
        return replace(
            self,
            rank_bytes_per_s=tuple(rate * factor for rate in self.rank_bytes_per_s),
        )

    def transfer_s(self, bytes_to_each_peer: float) -> float:
        """How long every rank needs to send that many bytes to each other rank, all at once."""
        return (len(self.rank_bytes_per_s) - 1) * bytes_to_each_peer / self.bottleneck_bytes_per_s
