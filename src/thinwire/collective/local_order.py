"""What the deps of one program mean, piece by piece: which piece waits for which.

This is the meaning that ``schedule`` states, and no more than it: the checker proves that it is enough, the
interpreter and the executor may run any order that it allows.

Not here: what ranks do to each other (``order``).
"""

from __future__ import annotations

from collections import defaultdict

from thinwire.collective.schedule import Op, Program, Ref

Piece = tuple[int, int]
"""(op, piece)"""


class LocalOrder:
    """The order of the pieces of one program.

    Attributes:
        ancestors: for each op the bit set of the ops that deps order before it, directly or through others.

    >>> from thinwire.collective.builder import ProgramBuilder
    >>> from thinwire.collective.schedule import data
    >>> ops = ProgramBuilder(rank=0)
    >>> received = ops.recv(1, data(0), data(1))
    >>> sent = ops.send(2, data(1), data(2))
    >>> order = LocalOrder(ops.program())
    >>> order.waits_for(sent, 0), order.waits_for(sent, 1)
    ([(0, 1)], [])
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self.ancestors: list[int] = []
        self._accesses: dict[Ref, list[tuple[int, int, bool]]] = defaultdict(list)  # (op, piece, writes)
        for index, op in enumerate(program):
            before = 0
            for dep in op.deps:
                before |= self.ancestors[dep] | 1 << dep
            self.ancestors.append(before)
            for piece in range(num_pieces(op)):
                for ref, writes in piece_accesses(op, piece):
                    self._accesses[ref].append((index, piece, writes))

    def waits_for(self, index: int, piece: int) -> list[Piece]:
        """The pieces that one piece waits for, without those that they themselves wait for on the same chunk."""
        op = self._program[index]
        before = self.ancestors[index]
        found: list[Piece] = []
        for ref, writes in piece_accesses(op, piece):
            left = before
            for other, other_piece, other_writes in reversed(self._accesses[ref]):
                if left >> other & 1 and (writes or other_writes):
                    found.append((other, other_piece))
                    if other_writes:
                        left &= ~self.ancestors[other]
        touched = {*op.source, *op.target}
        for dep in op.deps:
            other_op = self._program[dep]
            if touched.isdisjoint(other_op.source) and touched.isdisjoint(other_op.target):
                found += ((dep, other_piece) for other_piece in range(num_pieces(other_op)))
        return found


def num_pieces(op: Op) -> int:
    """How many pieces an op has: its chunks, or one if it has none."""
    return max(1, len(op.source), len(op.target))


def piece_accesses(op: Op, piece: int) -> list[tuple[Ref, bool]]:
    """The chunks that one piece touches, and whether it writes them."""
    return [(ref, False) for ref in op.source[piece : piece + 1]] + [
        (ref, True) for ref in op.target[piece : piece + 1]
    ]
