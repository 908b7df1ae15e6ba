"""Happens-before: in which orders the ops of a schedule can run, over all ranks.

Two graphs, both needed. Between whole ops it has every reason to wait there is (deps, messages, the credit window),
so if it has no cycle no execution deadlocks. Between pieces it has only the order that every execution keeps
(deps as ``local_order`` has them, and messages), so what it leaves unordered may really happen in either order.

A SEND counts as done once its bytes have left, even if the receiver is not ready (buffered). Window W adds: the
k-th message of a channel waits until message k - W has been consumed. Window 0 is the strictest reading,
rendezvous: a SEND is done only once its RECV can begin. In-place exchanges (send a chunk, then receive into it, on
both sides) need one buffered message and deadlock without.

Not here: what the ops do to values.
"""

from __future__ import annotations

from thinwire.collective.expansion import Expansion
from thinwire.collective.local_order import LocalOrder, Piece
from thinwire.collective.schedule import OpKind
from thinwire.errors import ScheduleError, UsageError


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
        ranks = range(expansion.schedule.num_ranks)
        self._local = [LocalOrder(expansion.schedule.program(rank)) for rank in ranks]
        self._waits = _reasons_to_wait(expansion, window)
        self.sequence = self._sort()
        self.position = [0] * len(self.sequence)
        for place, number in enumerate(self.sequence):
            self.position[number] = place
        self.depth = self._depths()

    def precedes(self, before: Piece, after: Piece) -> bool:
        """Whether ``before`` is done before ``after`` starts in every execution.

        The two conflict: they touch one chunk of one rank, and one of them writes it.
        """
        expansion = self.expansion
        rank = expansion.rank[before[0]]
        first = expansion.first[rank]
        if self._local[rank].ancestors[after[0] - first] >> (before[0] - first) & 1:
            return True
        seen = {after}
        open_pieces = [after]
        while open_pieces:
            for earlier in self._predecessors(*open_pieces.pop()):
                if earlier == before:
                    return True
                if self.position[earlier[0]] > self.position[before[0]] and earlier not in seen:
                    seen.add(earlier)
                    open_pieces.append(earlier)
        return False

    def _predecessors(self, number: int, piece: int) -> list[Piece]:
        """The pieces, on this rank and the sending one, that a piece waits for."""
        expansion = self.expansion
        rank = expansion.rank[number]
        first = expansion.first[rank]
        found = [(first + op, other) for op, other in self._local[rank].waits_for(number - first, piece)]
        if expansion.ops[number].kind is OpKind.RECV:
            found.append((expansion.partner[number], piece))
        return found

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
