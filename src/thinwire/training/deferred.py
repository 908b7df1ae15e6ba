"""An optimizer whose ``step`` is done piece by piece: for each parameter when its gradient has landed.

``step()`` notes the settings of that moment (a scheduler may change them right after) and returns. ``apply`` then runs
the optimizer's own step on some parameters, so that any optimizer works whose parameters do not look at each other.

Not here: knowing when a gradient has landed (``data_parallel``).
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from thinwire.errors import UsageError


class DeferredStep:
    """Stands before ``optimizer.step``.

    Args:
        optimizer: its ``step`` is replaced.
        is_pending: whether the gradient of a parameter has yet to land; the others are stepped at once.

    Raises:
        UsageError: the optimizer looks at all parameters together.
    """

    def __init__(self, optimizer: Optimizer, is_pending: Callable[[Parameter], bool]) -> None:
        if isinstance(optimizer, torch.optim.LBFGS):
            raise UsageError(
                "LBFGS steps all parameters together: it cannot be overlapped; leave overlap() out"
            )
        self._optimizer = optimizer
        self._is_pending = is_pending
        self._step = optimizer.step
        self._settings: list[dict[str, Any]] = []
        self._waiting: set[int] = set()

        def step(optimizer: Optimizer, closure: Callable[[], float] | None = None) -> None:
            self._defer(closure)

        # A method of the optimizer, because torch's schedulers take the function out of it.
        optimizer.step = types.MethodType(step, optimizer)  # type: ignore[method-assign]

    def is_waiting(self, parameter: Parameter) -> bool:
        """Whether a step of this parameter was asked for and has not been done."""
        return id(parameter) in self._waiting

    def apply(self, parameters: Sequence[Parameter]) -> None:
        """Do the step that was asked for, on those parameters whose gradient is in ``grad`` now."""
        chosen = {id(each) for each in parameters}
        self._waiting -= chosen
        groups = self._optimizer.param_groups
        before = [dict(group) for group in groups]
        for group, settings in zip(groups, self._settings, strict=True):
            group.update(settings, params=[each for each in group["params"] if id(each) in chosen])
        try:
            self._step()
        finally:
            for group, settings in zip(groups, before, strict=True):
                group.update(settings)

    def _defer(self, closure: Callable[[], float] | None = None) -> None:
        if closure is not None:
            raise UsageError("an overlapped optimizer takes no closure: call backward() and then step()")
        groups = self._optimizer.param_groups
        self._settings = [
            {name: value for name, value in group.items() if name != "params"} for group in groups
        ]
        parameters = [each for group in groups for each in group["params"]]
        self._waiting = {id(each) for each in parameters if self._is_pending(each)}
        self._optimizer._opt_called = True  # type: ignore[attr-defined]  # what torch's schedulers look for
        landed = [each for each in parameters if id(each) not in self._waiting]
        if landed:
            self.apply(landed)
