"""A schedule for the eye: each rank's ops as text, the messages step by step, and a Mermaid sequence diagram.

Rendering needs a schedule whose messages match and which does not deadlock; it may be wrong otherwise, so that one can
look at what the checker complains of.

Not here: traces of what happened, which have times.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from thinwire.collective.expansion import Expansion, describe
from thinwire.collective.order import HappensBefore
from thinwire.collective.schedule import Op, OpKind, Ref, Schedule


def as_text(schedule: Schedule, ranks: Iterable[int] | None = None) -> str:
    """The programs of some ranks (all, if None), one op a line, with what each waits for.

    >>> from thinwire.collective.algorithms.ring import all_reduce
    >>> print(as_text(all_reduce(2), ranks=[0]))
    all_reduce of 2 ranks by ring
    rank 0
      0  send data[1] to rank 1
      1  recv reduce data[0] from rank 1
      2  send data[0] to rank 1           after 1
      3  recv data[1] from rank 1         after 0
    """
    lines = [_title(schedule)]
    for rank in range(schedule.num_ranks) if ranks is None else ranks:
        program = schedule.program(rank)
        words = [describe(op) for op in program]
        width = max(map(len, words), default=0)
        lines.append(f"rank {rank}")
        for index, (op, text) in enumerate(zip(program, words, strict=True)):
            after = f"  after {', '.join(map(str, op.deps))}" if op.deps else ""
            lines.append(f"  {index:<{len(str(len(program)))}}  {text:<{width}}{after}".rstrip())
    return "\n".join(lines)


def as_steps(schedule: Schedule) -> str:
    """The messages of all ranks by step: step s holds those for which a chain of s messages is needed.

    Raises:
        ScheduleError: messages do not match, or the schedule deadlocks.

    >>> from thinwire.collective.algorithms.binomial_tree import broadcast
    >>> print(as_steps(broadcast(4)))
    broadcast of 4 ranks by binomial_tree
    step 1
      0 -> 2  data[0]
      0 -> 1  data[0]
    step 2
      2 -> 3  data[0]
    """
    lines = [_title(schedule)]
    for step, messages in _messages(schedule).items():
        lines.append(f"step {step}")
        width = len(str(schedule.num_ranks - 1))
        for rank, send, recv in messages:
            lines.append(f"  {rank:>{width}} -> {send.peer:>{width}}  {_cargo(send, recv)}")
    return "\n".join(lines)


def as_mermaid(schedule: Schedule) -> str:
    """The messages as the source of a Mermaid sequence diagram, step by step.

    Raises:
        ScheduleError: messages do not match, or the schedule deadlocks.

    >>> from thinwire.collective.algorithms.direct import send_recv
    >>> print(as_mermaid(send_recv(2)))
    sequenceDiagram
        title send_recv of 2 ranks by direct
        participant r0 as rank 0
        participant r1 as rank 1
        Note over r0,r1: step 1
        r0->>r1: data[0]
    """
    last = schedule.num_ranks - 1
    lines = ["sequenceDiagram", f"    title {_title(schedule)}"]
    lines += [f"    participant r{rank} as rank {rank}" for rank in range(schedule.num_ranks)]
    for step, messages in _messages(schedule).items():
        lines.append(f"    Note over {'r0' if last == 0 else f'r0,r{last}'}: step {step}")
        lines += [f"    r{rank}->>r{send.peer}: {_cargo(send, recv)}" for rank, send, recv in messages]
    return "\n".join(lines)


def _title(schedule: Schedule) -> str:
    params = "".join(f", {key} {value}" for key, value in sorted(schedule.params.items()))
    return f"{schedule.collective.kind} of {schedule.num_ranks} ranks by {schedule.algorithm}{params}"


def _messages(schedule: Schedule) -> dict[int, list[tuple[int, Op, Op]]]:
    """Step -> (sending rank, SEND, RECV) of its messages, by rank."""
    expansion = Expansion(schedule)
    order = HappensBefore(expansion)
    by_step: dict[int, list[tuple[int, Op, Op]]] = defaultdict(list)
    for number, op in enumerate(expansion.ops):
        if op.kind is OpKind.SEND:
            recv = expansion.partner[number]
            by_step[order.depth[number] + 1].append((expansion.rank[number], op, expansion.ops[recv]))
    return dict(sorted(by_step.items()))


def _cargo(send: Op, recv: Op) -> str:
    """What travels, and what becomes of it where that is not the same place."""
    source, target = _list(send.source), _list(recv.target)
    if recv.reduce:
        return f"{source}, added" if source == target else f"{source}, added to {target}"
    return source if source == target else f"{source} to {target}"


def _list(refs: tuple[Ref, ...]) -> str:
    return ", ".join(map(str, refs)) or "nothing"
