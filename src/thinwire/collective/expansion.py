"""All programs of a schedule laid end to end, every op well formed and every message matched.

Ops get one number each, rank after rank, so that what follows (order, data flow, drawing) works on plain lists.

Not here: whether the ops can all run (``order``) and whether they compute the right thing (``check``).
"""

from __future__ import annotations

from collections import defaultdict

from thinwire.collective.conditions import Extent, extents
from thinwire.collective.schedule import Buffer, Op, OpKind, Ref, Schedule
from thinwire.errors import ScheduleError

Channel = tuple[int, int, int]
"""(sending rank, receiving rank, channel number)"""


class Expansion:
    """A schedule with its lazily written programs expanded.

    Attributes:
        ops: the ops of rank 0, then of rank 1, ...
        rank: for each op its rank.
        first: for each rank the number of its first op; one entry more for the end.
        partner: for each SEND its RECV and the reverse; -1 for ops that are no message.
        sends: for each channel its SENDs in order; ``partner`` leads to their RECVs.
        extents: for each rank its refs with the identities of their sizes.

    Raises:
        ScheduleError: an op is malformed, or a message has no counterpart or another size than its counterpart.
    """

    def __init__(self, schedule: Schedule) -> None:
        num_chunks = schedule.collective.num_chunks
        if len(schedule.weights) != num_chunks or any(weight < 0 for weight in schedule.weights):
            raise ScheduleError(
                f"weights must be {num_chunks} integers, one a chunk, none negative; got {schedule.weights}"
            )
        self.schedule = schedule
        self.ops: list[Op] = []
        self.rank: list[int] = []
        self.first = [0]
        self.extents: list[dict[Ref, Extent]] = []
        for rank in range(schedule.num_ranks):
            program = schedule.program(rank)
            self.ops.extend(program)
            self.rank.extend([rank] * len(program))
            self.first.append(len(self.ops))
            self.extents.append(extents(schedule, rank))
        for number in range(len(self.ops)):
            self._check_op(number)
        self.sends: dict[Channel, list[int]] = defaultdict(list)
        self.partner = [-1] * len(self.ops)
        self._match()

    def deps(self, number: int) -> list[int]:
        """The numbers of the ops that op ``number`` waits for on its own rank."""
        first = self.first[self.rank[number]]
        return [first + dep for dep in self.ops[number].deps]

    def describe(self, number: int) -> str:
        """Which op it is, in words, for messages."""
        rank = self.rank[number]
        return f"rank {rank} op {number - self.first[rank]} ({describe(self.ops[number])})"

    def _check_op(self, number: int) -> None:
        op, rank = self.ops[number], self.rank[number]
        fault = _shape_fault(op) or _access_fault(op)
        if fault is None:
            fault = self._reach_fault(op, rank, number - self.first[rank])
        if fault is not None:
            raise ScheduleError(f"{self.describe(number)}: {fault}")

    def _reach_fault(self, op: Op, rank: int, index: int) -> str | None:
        known = self.extents[rank]
        for ref in op.source + op.target:
            if ref not in known:
                return f"this rank has no {ref}"
        if op.kind not in (OpKind.SEND, OpKind.RECV):
            for source, target in zip(op.source, op.target, strict=True):
                if known[source] != known[target]:
                    return f"{source} and {target} differ in size"
        elif not 0 <= op.peer < self.schedule.num_ranks or op.peer == rank:
            return f"its peer must be another rank below {self.schedule.num_ranks}"
        for dep in op.deps:
            if not 0 <= dep < index:
                return f"it depends on op {dep}, which is not an earlier op of its rank"
        return None

    def _match(self) -> None:
        sends: dict[tuple[int, int], list[int]] = defaultdict(list)
        recvs: dict[tuple[int, int], list[int]] = defaultdict(list)
        for number, op in enumerate(self.ops):
            if op.kind is OpKind.SEND:
                sends[self.rank[number], op.peer].append(number)
            elif op.kind is OpKind.RECV:
                recvs[op.peer, self.rank[number]].append(number)
        for pair in sorted(sends.keys() | recvs.keys()):
            sent, received = sends[pair], recvs[pair]
            for lonely, counterpart in ((sent[len(received) :], "recv"), (received[len(sent) :], "send")):
                if lonely:
                    raise ScheduleError(f"{self.describe(lonely[0])} has no matching {counterpart}")
            for send, recv in zip(sent, received, strict=True):
                self._match_message(send, recv)

    def _match_message(self, send: int, recv: int) -> None:
        channel = self.ops[send].channel
        if self.ops[recv].channel != channel:
            raise ScheduleError(f"{self.describe(send)} and {self.describe(recv)} are on different channels")
        if self._carries_payload(send) != self._carries_payload(recv):
            raise ScheduleError(
                f"{self.describe(send)} and {self.describe(recv)}: one is of a payload, the other is not"
            )
        if self._sizes(send) != self._sizes(recv):
            raise ScheduleError(f"{self.describe(send)} and {self.describe(recv)} differ in size")
        self.partner[send], self.partner[recv] = recv, send
        self.sends[self.rank[send], self.rank[recv], channel].append(send)

    def _carries_payload(self, number: int) -> bool:
        op = self.ops[number]
        return any(ref.buffer is Buffer.PAYLOAD for ref in op.source + op.target)

    def _sizes(self, number: int) -> list[Extent]:
        known = self.extents[self.rank[number]]
        return [known[ref] for ref in self.ops[number].source + self.ops[number].target]


def describe(op: Op) -> str:
    """One op in words.

    >>> describe(Op(kind=OpKind.RECV, peer=3, target=(Ref(Buffer.DATA, 1),), reduce=True))
    'recv reduce data[1] from rank 3'
    """
    source, target = ", ".join(map(str, op.source)), ", ".join(map(str, op.target))
    match op.kind:
        case OpKind.SEND:
            return f"send {source or 'nothing'} to rank {op.peer}"
        case OpKind.RECV:
            return f"recv {'reduce ' if op.reduce else ''}{target or 'nothing'} from rank {op.peer}"
        case OpKind.COPY:
            return f"copy {source} to {target}"
        case OpKind.REDUCE:
            return f"reduce {source} into {target}"
        case OpKind.ENCODE:
            return f"encode {source} as {target}"
        case OpKind.DECODE:
            return f"decode {source} {'and add it ' if op.reduce else ''}to {target}"


def _shape_fault(op: Op) -> str | None:
    """What is wrong with the form of an op, whatever rank it is on."""
    match op.kind:
        case OpKind.SEND if op.target:
            return "a send has no target"
        case OpKind.RECV if op.source:
            return "a recv has no source"
        case OpKind.COPY | OpKind.REDUCE if not op.source or len(op.source) != len(op.target):
            return "it needs one source for each target, and at least one"
        case OpKind.ENCODE | OpKind.DECODE if len(op.source) != 1 or len(op.target) != 1:
            return "it needs one source and one target"
    if op.reduce and op.kind not in (OpKind.RECV, OpKind.DECODE):
        return "only a recv and a decode take the reduce flag"
    if len(set(op.target)) != len(op.target):
        return "it writes a chunk twice"
    if not set(op.target).isdisjoint(op.source):
        return "it reads a chunk that it writes"
    return None


def _access_fault(op: Op) -> str | None:
    """What an op does to a buffer that the buffer does not allow."""
    for ref in op.target:
        if ref.buffer is Buffer.INPUT:
            return "input is never written"
        if ref.buffer is Buffer.ACCUMULATOR and op.kind is OpKind.RECV and not op.reduce:
            return "an accumulator is written by copy, reduce, recv reduce and decode only"
    for ref in op.source:
        if ref.buffer is Buffer.ACCUMULATOR and op.kind not in (OpKind.COPY, OpKind.ENCODE):
            return "an accumulator is read by copy and encode only"
    return _payload_fault(op)


def _payload_fault(op: Op) -> str | None:
    """What an op does to a payload that is not done to payloads, or to something else that is done to payloads only."""
    read, written = ([ref.buffer is Buffer.PAYLOAD for ref in refs] for refs in (op.source, op.target))
    if op.kind is OpKind.ENCODE:
        return (
            None if written == [True] and read == [False] else "it makes a payload of something that is none"
        )
    if op.kind is OpKind.DECODE:
        return None if read == [True] and written == [False] else "it makes something of a payload"
    if any(read + written):
        if op.kind not in (OpKind.SEND, OpKind.RECV) or op.reduce:
            return "a payload is encoded, sent, received and decoded, and nothing else"
        if len(read + written) > 1:
            return "a message of a payload holds nothing else"
    return None
