"""Expressions: equal ones are one number, and a sum knows what is in it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from thinwire.collective.expressions import Expressions


def test_addition_commutes_but_does_not_associate() -> None:
    table = Expressions()
    a, b, c = (table.contribution(rank, 0) for rank in range(3))
    assert table.add(a, b) == table.add(b, a)
    assert table.add(table.add(a, b), c) != table.add(a, table.add(b, c))


def test_wide_sums_differ_from_narrow_ones_until_they_are_no_sums() -> None:
    table = Expressions()
    a, b = table.contribution(0, 0), table.contribution(1, 0)
    wide = table.add(a, b, wide=True)
    assert wide != table.add(a, b)
    assert table.round(wide) not in (wide, table.add(a, b))
    assert table.round(a) == a
    assert table.round(table.round(wide)) == table.round(wide)
    assert table.text(table.round(wide)) == "~{r0 + r1}"


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=8))
def test_a_sum_counts_every_contribution(origins: list[tuple[int, int]]) -> None:
    table = Expressions()
    value = table.contribution(*origins[0])
    for origin in origins[1:]:
        value = table.add(value, table.contribution(*origin))
    assert dict(table.contributions(value)) == {origin: origins.count(origin) for origin in origins}
    is_right = sorted(origins) == [(0, 1), (1, 1), (2, 1)]
    assert table.is_sum(value, 0b111, 1) == is_right


def test_a_value_added_to_itself_many_times_is_counted_quickly() -> None:
    table = Expressions()
    value = table.contribution(5, 0)
    for _ in range(200):
        value = table.add(value, value)
    assert table.contributions(value) == {(5, 0): 2**200}
    assert not table.is_sum(value, 1 << 5, 0)
    assert table.text(value, depth=1) == "(... + ...)"
