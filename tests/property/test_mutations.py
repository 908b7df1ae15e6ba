"""The checker catches every fault that changes an outcome: seeded random faults put into schedules that are right.

Whether a fault changes the outcome is decided without the checker: the interpreter runs the faulty schedule in several
random orders, on integers (is every contribution there once?) and on floats (are the bytes the same in every order
and on every rank, though every encode loses something of its own?). For barriers, which have no data, one rank is
stopped at the start to see who gets through.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from thinwire.collective import CollectiveKind, Op, OpKind, Program, Ref, Schedule, algorithms, prove
from thinwire.collective.conditions import postcondition
from thinwire.collective.interpret import Interpreter, Memory
from thinwire.errors import ScheduleError
from thinwire.testing.algorithms import contributions, lose_something

NUM_FAULTS = 6000
BATCHES = 8
FEWEST_CHANGES = 3000  # of the outcome; the other faults happen to do no harm, or could not be applied
ORDERS = 6

Programs = list[list[Op]]


def drop(programs: Programs, rank: int, index: int, rng: np.random.Generator) -> None:
    """The op is gone; what waited for it does not."""
    program = programs[rank]
    del program[index]
    for later in range(index, len(program)):
        deps = tuple(dep - (dep > index) for dep in program[later].deps if dep != index)
        program[later] = msgspec.structs.replace(program[later], deps=deps)


def double(programs: Programs, rank: int, index: int, rng: np.random.Generator) -> None:
    """The op is there twice, the second time after the first; what waited for the first waits for the second."""
    program = programs[rank]
    program.insert(index + 1, msgspec.structs.replace(program[index], deps=(*program[index].deps, index)))
    for later in range(index + 2, len(program)):
        deps = tuple(dep + (dep >= index) for dep in program[later].deps)
        program[later] = msgspec.structs.replace(program[later], deps=deps)


def readdress(programs: Programs, rank: int, index: int, rng: np.random.Generator) -> None:
    """The message goes to, or is expected from, another rank."""
    op = programs[rank][index]
    if op.kind in (OpKind.SEND, OpKind.RECV):
        programs[rank][index] = msgspec.structs.replace(op, peer=int(rng.integers(len(programs))))


def forget_dependency(programs: Programs, rank: int, index: int, rng: np.random.Generator) -> None:
    """The op no longer waits for one of those it should."""
    op = programs[rank][index]
    if op.deps:
        forgotten = rng.choice(op.deps)
        deps = tuple(dep for dep in op.deps if dep != forgotten)
        programs[rank][index] = msgspec.structs.replace(op, deps=deps)


def swap(programs: Programs, rank: int, index: int, rng: np.random.Generator) -> None:
    """Two ops change places in the list; dependencies that then point forwards are lost."""
    program = programs[rank]
    other = int(rng.integers(len(program)))
    program[index], program[other] = program[other], program[index]
    moved = {index: other, other: index}
    for place, op in enumerate(program):
        deps = sorted({moved.get(dep, dep) for dep in op.deps})
        program[place] = msgspec.structs.replace(op, deps=tuple(dep for dep in deps if dep < place))


def wrong_chunk(programs: Programs, rank: int, index: int, rng: np.random.Generator) -> None:
    """One of the op's chunks is another one of the same buffer."""
    op = programs[rank][index]
    refs = [*op.source, *op.target]
    if refs:
        place = int(rng.integers(len(refs)))
        buffer = refs[place].buffer
        known = {ref for program in programs for any_op in program for ref in any_op.source + any_op.target}
        refs[place] = Ref(
            buffer, int(rng.integers(1 + max(ref.chunk for ref in known if ref.buffer is buffer)))
        )
        cut = len(op.source)
        programs[rank][index] = msgspec.structs.replace(
            op, source=tuple(refs[:cut]), target=tuple(refs[cut:])
        )


def wrong_reduce(programs: Programs, rank: int, index: int, rng: np.random.Generator) -> None:
    """What should be added overwrites, or the reverse."""
    op = programs[rank][index]
    match op.kind:
        case OpKind.RECV | OpKind.DECODE:
            op = msgspec.structs.replace(op, reduce=not op.reduce)
        case OpKind.COPY:
            op = msgspec.structs.replace(op, kind=OpKind.REDUCE)
        case OpKind.REDUCE:
            op = msgspec.structs.replace(op, kind=OpKind.COPY)
    programs[rank][index] = op


FAULTS = (drop, double, readdress, forget_dependency, swap, wrong_chunk, wrong_reduce)


@pytest.fixture(scope="module")
def right() -> list[Schedule]:
    """Schedules of every algorithm for a few ranks, with every set of parameters worth trying."""
    return [
        algorithm.generate(num_ranks, **params)
        for algorithm in algorithms()
        for num_ranks in ([2] if algorithm.kind is CollectiveKind.SEND_RECV else [2, 3, 4, 5, 6])
        for params in algorithm.example_params(num_ranks)
    ]


@pytest.mark.parametrize("batch", range(BATCHES))
def test_every_fault_that_changes_the_outcome_is_caught(right: list[Schedule], batch: int) -> None:
    rng = np.random.default_rng(batch)
    caught: Counter[Callable[..., None]] = Counter()
    for number in range(NUM_FAULTS // BATCHES):
        schedule = right[int(rng.integers(len(right)))]
        fault = FAULTS[number % len(FAULTS)]
        faulty = _with_fault(schedule, fault, rng)
        if faulty is None or not (symptom := _symptom(faulty, rng)):
            continue
        with pytest.raises(ScheduleError):
            _prove_or_tell(faulty, schedule, fault, symptom)
        caught[fault] += 1
    assert set(caught) == set(FAULTS)
    assert caught.total() >= FEWEST_CHANGES / BATCHES


def _with_fault(schedule: Schedule, fault: Callable[..., None], rng: np.random.Generator) -> Schedule | None:
    programs = [list(schedule.program(rank)) for rank in range(schedule.num_ranks)]
    busy = [rank for rank, program in enumerate(programs) if program]
    rank = busy[int(rng.integers(len(busy)))]
    fault(programs, rank, int(rng.integers(len(programs[rank]))), rng)
    if [tuple(program) for program in programs] == [schedule.program(r) for r in range(schedule.num_ranks)]:
        return None
    return Schedule(
        schedule.collective,
        schedule.algorithm,
        lambda rank: tuple(programs[rank]),
        weights=schedule.weights,
        scratch=schedule.scratch,
        accumulators=schedule.accumulators,
        payloads=schedule.payloads,
        even_blocks=schedule.even_blocks,
    )


def _prove_or_tell(faulty: Schedule, schedule: Schedule, fault: Callable[..., None], symptom: str) -> None:
    prove(faulty)
    changed = [
        f"rank {rank}: {before} -> {after}"
        for rank in range(schedule.num_ranks)
        for before, after in [(schedule.program(rank), faulty.program(rank))]
        if before != after
    ]
    pytest.fail(f"{fault.__name__} in {schedule} was not caught, but {symptom}: {changed}")


def _symptom(faulty: Schedule, rng: np.random.Generator) -> str:
    """What goes wrong when the schedule runs; empty if nothing was seen to."""
    if faulty.collective.kind is CollectiveKind.BARRIER:
        return _barrier_symptom([faulty.program(rank) for rank in range(faulty.num_ranks)])
    whole = contributions(faulty, rng, 40, np.int64)
    broken = contributions(faulty, rng, 40, np.float32)
    interpreter, lossy = Interpreter(faulty), Interpreter(faulty, encode=lose_something)
    results = set()
    try:
        for _ in range(ORDERS):
            memory = interpreter.run(whole, rng)
            for rank, own in enumerate(memory):
                for ref, (origins, chunk) in postcondition(faulty.collective, rank).items():
                    if not np.array_equal(own[ref], sum(whole[origin, chunk] for origin in origins)):
                        return f"{ref} is wrong on rank {rank}"
            memory = lossy.run(broken, rng)
            if faulty.collective.kind is CollectiveKind.ALL_REDUCE:
                results |= {_bytes(faulty, rank, memory[rank]) for rank in range(faulty.num_ranks)}
            else:
                results.add(b"".join(_bytes(faulty, rank, own) for rank, own in enumerate(memory)))
    except ScheduleError as error:
        return str(error)
    except KeyError as error:
        return f"{error} was never written"
    return "bytes differ" if len(results) > 1 else ""


def _bytes(schedule: Schedule, rank: int, own: Memory) -> bytes:
    return b"".join(own[ref].tobytes() for ref in postcondition(schedule.collective, rank))


def _barrier_symptom(programs: list[Program]) -> str:
    everybody = range(len(programs))
    if any(not 0 <= op.peer < len(programs) for program in programs for op in program):
        return "a message to nobody"
    finished = _who_finishes(programs, stopped=None)
    if finished != set(everybody):
        return "deadlock"
    for stopped in everybody:
        early = _who_finishes(programs, stopped) - {stopped}
        if early:
            return f"ranks {early} leave before rank {stopped} has entered"
    counts = Counter((rank, op.peer) for rank in everybody for op in programs[rank] if op.kind is OpKind.SEND)
    counts.subtract((op.peer, rank) for rank in everybody for op in programs[rank] if op.kind is OpKind.RECV)
    return "unmatched messages" if any(counts.values()) else ""


def _who_finishes(programs: list[Program], stopped: int | None) -> set[int]:
    """Run ops until none can, with one rank stopped before its first."""
    done: set[tuple[int, int]] = set()
    sent: Counter[tuple[int, int]] = Counter()
    ops = [(rank, index, op) for rank, program in enumerate(programs) for index, op in enumerate(program)]
    progress = True
    while progress:
        progress = False
        for rank, index, op in ops:
            if rank == stopped or (rank, index) in done or any((rank, dep) not in done for dep in op.deps):
                continue
            if op.kind is OpKind.SEND:
                sent[rank, op.peer] += 1
            elif sent[op.peer, rank] <= sum(
                (rank, other) in done and earlier.kind is OpKind.RECV and earlier.peer == op.peer
                for other, earlier in enumerate(programs[rank])
            ):
                continue
            done.add((rank, index))
            progress = True
    return {
        rank for rank, program in enumerate(programs) if all((rank, i) in done for i in range(len(program)))
    }
