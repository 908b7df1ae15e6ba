"""Counts what one rank sends, in which form, and what exact would have been.

Bytes are those that codecs announce, without the headers of frames. Not here: times (``meter``).
"""

from __future__ import annotations

from collections.abc import Sequence

from thinwire.codec.base import Shape
from thinwire.planner.forms import EXACT, Form
from thinwire.training.agreement import Plan
from thinwire.training.figures import Figures
from thinwire.training.meter import Measurement

LOOKS = "looks at the wire"


class Ledger:
    """Of one rank.

    Attributes:
        sent: name of a form -> values and bytes sent in it, since the beginning.

    >>> ledger = Ledger(num_ranks=2)
    >>> ledger.count(EXACT, num_values=100)
    400
    >>> ledger.sent
    {'exact': (100, 400)}
    """

    def __init__(self, num_ranks: int) -> None:
        self._num_ranks = num_ranks
        self.sent: dict[str, tuple[int, int]] = {}
        self._in_step: dict[str, int] = {}
        self._bytes_saved = 0

    def begin_step(self) -> None:
        """What is counted from now on belongs to another step."""
        self._in_step = {}

    def count(
        self,
        form: Form,
        num_values: int,
        num_halves: int = 2,
        what: str = "",
        shapes: Sequence[Shape] = (),
    ) -> int:
        """Something travels; returns the bytes that this rank sends of it, to all others together.

        Args:
            num_values: of the whole tensor.
            num_halves: 2: every rank's shards go to their owners, and the sums to all; 1: one of the two.
            what: said before the form's name; nothing for gradients.
            shapes: of the tensors that the values are, as ``Form.shard_bytes`` takes them.
        """
        num_bytes = self._num_bytes(form, num_values, num_halves, shapes)
        name = what + form.name
        values_before, bytes_before = self.sent.get(name, (0, 0))
        self.sent[name] = values_before + num_values, bytes_before + num_bytes
        self._in_step[name] = self._in_step.get(name, 0) + num_bytes
        self._bytes_saved += self._num_bytes(EXACT, num_values, num_halves) - num_bytes
        return num_bytes

    def count_look(self, num_bytes: int) -> None:
        """So many bytes travel to all others together only to see what the wire carries."""
        self.sent[LOOKS] = 0, self.sent.get(LOOKS, (0, 0))[1] + num_bytes
        self._bytes_saved -= num_bytes

    def figures(self, step: int, plan: Plan, measured: Measurement) -> Figures:
        """The last step's, with what was measured of it."""
        in_step = sum(self._in_step.values()) or 1
        travelled_s = measured.ready_s[-1] - measured.ready_s[0] + measured.exposed_s
        return Figures(
            step=step,
            step_s=measured.step_s + measured.exposed_s,
            exposed_s=measured.exposed_s,
            hidden=1 - measured.exposed_s / travelled_s if travelled_s else 1.0,
            plan=plan.number,
            forms={name: num_bytes / in_step for name, num_bytes in self._in_step.items()},
            bytes_sent=sum(num_bytes for _, num_bytes in self.sent.values()),
            bytes_saved=self._bytes_saved,
            bandwidth_bytes_per_s=measured.bandwidth_bytes_per_s,
        )

    def _num_bytes(self, form: Form, num_values: int, num_halves: int, shapes: Sequence[Shape] = ()) -> int:
        """A shard to each other rank, and the sum of the own shard to each: a half each."""
        return num_halves * (self._num_ranks - 1) * form.shard_bytes(num_values, self._num_ranks, shapes)
