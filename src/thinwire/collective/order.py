"""Happens-before: in which orders the ops of a schedule can run, over all ranks.

Two graphs, both needed. Between whole ops it has every reason to wait there is (deps, messages, the credit window),
so if it has no cycle no execution deadlocks. Between pieces it has only the order that every execution keeps
(deps piece by piece, and messages), so what it leaves unordered may really happen in either order.

A SEND counts as done once its bytes have left, even if the receiver is not ready (buffered). Window W adds: the
k-th message of a channel waits until message k - W has been consumed. Window 0 is the strictest reading,
rendezvous: a SEND is done only once its RECV can begin. In-place exchanges (send a chunk, then receive into it, on
both sides) need one buffered message and deadlock without.

Not here: what the ops do to values.
"""

from __future__ import annotations

from thinwire.collective.expansion import Expansion, pieces_waited_for
from thinwire.collective.schedule import OpKind
from thinwire.errors import ScheduleError, UsageError

Piece = tuple[int, int]
"""(op number, piece)"""


class HappensBefore:
    """The order of the ops of an expanded schedule.

    Args:
        expansion: the ops.
        window: most unconsumed messages of a channel; None for no limit.

    Attributes:
        sequence: all op numbers in an order that respects every reason to wait.
        position: for each op its place in ``sequence``.
        depth: for each op the longest chain of messages that ends with it, each waiting for the one before.

    Raises:
        ScheduleError: the schedule can deadlock; the message is the cycle.
    """

    def __init__(self, expansion: Expansion, window: int | None = None) -> None:
        if window is not None and window < 0:
            raise UsageError(f"a credit window is None or at least 0 messages, not {window}")
        self.expansion = expansion
        self._waits = _reasons_to_wait(expansion, window)
        self.sequence = self._sort()
        self.position = [0] * len(self.sequence)
        for place, number in enumerate(self.sequence):
            self.position[number] = place
        self.depth = self._depths()

    def precedes(self, before: Piece, after: Piece) -> bool:
        """Whether ``before`` is done before ``after`` starts in every execution.

        Both must touch one chunk of one rank, so that a dep between their ops holds between them.
        """
        expansion = self.expansion
        if before[0] in expansion.deps(after[0]):
            return True
        earliest = self.position[before[0]]
        seen: set[Piece] = set()
        open_pieces = [after]
        while open_pieces:
            number, piece = open_pieces.pop()
            op = expansion.ops[number]
            predecessors = [
                (dep, other)
                for dep in expansion.deps(number)
                for other in pieces_waited_for(op, piece, expansion.ops[dep])
            ]
            if op.kind is OpKind.RECV:
                predecessors.append((expansion.partner[number], piece))
            for predecessor in predecessors:
                if predecessor == before:
                    return True
                if self.position[predecessor[0]] >= earliest and predecessor not in seen:
                    seen.add(predecessor)
                    open_pieces.append(predecessor)
        return False

    def _sort(self) -> list[int]:
        """Kahn's topological sort."""
        waiting = [len(reasons) for reasons in self._waits]
        followers: list[list[int]] = [[] for _ in self._waits]
        for number, reasons in enumerate(self._waits):
            for reason in reasons:
                followers[reason].append(number)
        sequence = [number for number, count in enumerate(waiting) if count == 0]
        for number in sequence:
            for follower in followers[number]:
                waiting[follower] -= 1
                if waiting[follower] == 0:
                    sequence.append(follower)
        if len(sequence) < len(waiting):
            raise ScheduleError(f"deadlock: {self._cycle(waiting)}")
        return sequence

    def _cycle(self, waiting: list[int]) -> str:
        """A cycle among the ops that were never ready, in words."""
        number = next(number for number, count in enumerate(waiting) if count)
        path: dict[int, None] = {}
        while number not in path:
            path[number] = None
            number = next(reason for reason in self._waits[number] if waiting[reason])
        members = list(path)
        cycle = members[members.index(number) :]
        return " waits for ".join(self.expansion.describe(member) for member in [*cycle, number])

    def _depths(self) -> list[int]:
        expansion = self.expansion
        depth = [0] * len(self.sequence)
        for number in self.sequence:
            chains = [depth[dep] for dep in expansion.deps(number)]
            if expansion.ops[number].kind is OpKind.RECV:
                chains.append(depth[expansion.partner[number]] + 1)
            depth[number] = max(chains, default=0)
        return depth


def _reasons_to_wait(expansion: Expansion, window: int | None) -> list[list[int]]:
    waits = [expansion.deps(number) for number in range(len(expansion.ops))]
    for sends in expansion.sends.values():
        for place, send in enumerate(sends):
            recv = expansion.partner[send]
            if window == 0:
                waits[send].extend(expansion.deps(recv))
            elif window is not None and place >= window:
                waits[send].append(expansion.partner[sends[place - window]])
            waits[recv].append(send)
    return waits
