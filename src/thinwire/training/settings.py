"""What a user asks of ``attach``, as one value.

Not here: what fidelities mean (``fidelity``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from thinwire.clock import Clock
from thinwire.codec.base import Codec
from thinwire.errors import UsageError
from thinwire.planner.forms import Budget
from thinwire.training.figures import Figures

OnFigures = Callable[[Figures], None]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How gradients are to travel, and who is told. See ``attach`` for what each field means.

    Raises:
        UsageError: the target is negative.
    """

    fidelity: str | Codec
    target: float
    budget: Budget
    quiet: bool
    on_figures: OnFigures | None
    clock: Clock

    def __post_init__(self) -> None:
        if not self.target >= 0:
            raise UsageError(f"the target is {self.target}: use a fraction of the step from 0 up")
