"""Budgets as users write them: however they spell a codec, its form is admitted."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from thinwire.errors import UsageError
from thinwire.planner.forms import Budget, Form, ladder
from thinwire.training.fidelity import budget_of, candidates


@pytest.mark.parametrize(
    "asked",
    ["sign", "quantize( bits = 4 )", ["exact", "quantize(bits=4,block=1024)"], Budget(allowed=("sign",))],
)
def test_a_codec_that_is_named_may_be_used(asked: str | Sequence[str] | Budget) -> None:
    budget = budget_of(asked)
    [codec] = candidates(budget.allowed)
    form = Form(name=str(codec), codec=codec, error=0.1)
    assert ladder([form], budget)[1:] == (form,)


def test_a_number_bounds_the_error_and_names_what_there_is() -> None:
    assert budget_of(0.1) == Budget(max_error=0.1)
    assert budget_of(None) == Budget()
    with pytest.raises(UsageError, match="no codec 'quantise'"):
        budget_of(["quantise(bits=4)"])
