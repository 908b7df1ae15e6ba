"""What a chunk holds, as an expression over the contributions that went into it.

Expressions are interned: equal ones are one number, so "every rank ends with identical bytes" is a comparison of
integers. Floating-point addition does not associate, so ``(a + b) + c`` and ``a + (b + c)`` are different
expressions. It does commute, bit for bit, and so do min and max, *except* in which of two NaNs' payloads and which of
two zeros' signs survives: ``a + b`` and ``b + a`` are one expression here. Recursive doubling relies on that (both
partners add the other's value to their own); all other algorithms would pass without it.

Additions in an accumulator round differently from additions in the collective's dtype, so they are other
expressions, and so is the rounding when an accumulator is copied out.

Encoding loses something, and two encodes of one value lose different things: a coded value is named by the encode that
made it. It is the same for everybody who decodes that payload, so a payload and what it stands for are one expression.

Not here: numbers.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import NamedTuple


class Form(Enum):
    """How an expression is made."""

    CONTRIBUTION = "contribution"  # left = origin rank, right = chunk
    ADD = "add"  # in the collective's dtype
    WIDE_ADD = "wide add"  # in the accumulation dtype
    ROUND = "round"  # left, a wide value, rounded to the collective's dtype
    CODED = "coded"  # left, as encode number right left it


class Node(NamedTuple):
    """One expression; ``left`` and ``right`` are numbers of others unless ``form`` says otherwise."""

    form: Form
    left: int
    right: int


class Expressions:
    """A table of interned expressions, each with a summary of what it adds up.

    >>> table = Expressions()
    >>> a, b, c = (table.contribution(rank, 0) for rank in range(3))
    >>> table.add(a, b) == table.add(b, a)
    True
    >>> table.add(table.add(a, b), c) == table.add(a, table.add(b, c))
    False
    >>> table.text(table.add(table.add(a, b), c))
    '(r2 + (r0 + r1))'
    >>> table.coded(a, encode=1) == table.coded(a, encode=2)
    False
    """

    def __init__(self) -> None:
        self._numbers: dict[Node, int] = {}
        self._nodes: list[Node] = []
        self._summaries: list[_Summary] = []
        self._encodes: list[int] = []

    def contribution(self, rank: int, chunk: int) -> int:
        """The value that ``rank``'s ``chunk`` had at the start."""
        return self._intern(Node(Form.CONTRIBUTION, rank, chunk), _Summary(chunk, 1 << rank, True), 0)

    def add(self, left: int, right: int, *, wide: bool = False) -> int:
        """The sum; ``wide`` if it is made in an accumulator."""
        node = Node(Form.WIDE_ADD if wide else Form.ADD, min(left, right), max(left, right))
        one, other = self._summaries[left], self._summaries[right]
        sound = one.sound and other.sound and one.chunk == other.chunk and not one.ranks & other.ranks
        summary = _Summary(one.chunk, one.ranks | other.ranks, sound)
        return self._intern(node, summary, max(self._encodes[left], self._encodes[right]))

    def round(self, value: int) -> int:
        """The value as the collective's dtype holds it. Rounds what was added up in an accumulator, or decoded."""
        if self._nodes[value].form not in (Form.WIDE_ADD, Form.CODED):
            return value
        return self._intern(Node(Form.ROUND, value, 0), self._summaries[value], self._encodes[value])

    def coded(self, value: int, encode: int) -> int:
        """The value as the encode of that number leaves it."""
        return self._intern(Node(Form.CODED, value, encode), self._summaries[value], self._encodes[value] + 1)

    def num_encodes(self, value: int) -> int:
        """How many encodes the contribution that went through most of them went through."""
        return self._encodes[value]

    def is_sum(self, value: int, ranks: int, chunk: int) -> bool:
        """Whether it adds up ``chunk`` of each rank in the bit set ``ranks``, each exactly once, and nothing else."""
        return self._summaries[value] == _Summary(chunk, ranks, True)

    def contributions(self, value: int) -> Counter[tuple[int, int]]:
        """How often each (rank, chunk) is in the sum."""
        found: Counter[tuple[int, int]] = Counter()
        times = Counter({value: 1})
        for number in range(value, -1, -1):  # operands have smaller numbers than what is made of them
            form, left, right = self._nodes[number]
            match form:
                case Form.CONTRIBUTION:
                    found[left, right] += times[number]
                case Form.ROUND | Form.CODED:
                    times[left] += times[number]
                case Form.ADD | Form.WIDE_ADD:
                    times[left] += times[number]
                    times[right] += times[number]
        return +found

    def text(self, value: int, depth: int = 8) -> str:
        """The expression with its brackets, ``depth`` of them deep.

        ``r2`` is rank 2's contribution, ``{...}`` is added in an accumulator, ``~`` rounds, ``[...]#5`` is what encode
        number 5 left of it.
        """
        form, left, right = self._nodes[value]
        if form is Form.CONTRIBUTION:
            return f"r{left}"
        if depth == 0:
            return "..."
        if form is Form.ROUND:
            return f"~{self.text(left, depth)}"
        if form is Form.CODED:
            return f"[{self.text(left, depth - 1)}]#{right}"
        inner = f"{self.text(left, depth - 1)} + {self.text(right, depth - 1)}"
        return f"({inner})" if form is Form.ADD else f"{{{inner}}}"

    def _intern(self, node: Node, summary: _Summary, encodes: int) -> int:
        number = self._numbers.setdefault(node, len(self._nodes))
        if number == len(self._nodes):
            self._nodes.append(node)
            self._summaries.append(summary)
            self._encodes.append(encodes)
        return number


class _Summary(NamedTuple):
    """``sound``: one chunk only and no rank twice. Only then do ``chunk`` and ``ranks`` (a bit set) say it all."""

    chunk: int
    ranks: int
    sound: bool
