"""Star: one rank, the hub, does everything; the others talk to nobody else.

============  =====  =======================  ================================================================
collective    steps  bytes the hub sends      wins
============  =====  =======================  ================================================================
all_reduce    2      p - 1                    tiny data, few ranks; parameter servers; a hub with a fat link
broadcast     1      p - 1                    tiny data
reduce        1      0 (the others 1)         tiny data
gather        1      0 (the others 1 / p)     always good: the root must receive every block anyway
scatter       1      (p - 1) / p              always good
barrier       2      0                        few ranks
============  =====  =======================  ================================================================

It loses for anything large with more than two ranks: one link carries all.

Source: known as the linear algorithm in MPI libraries; as a parameter server it is M. Li et al., "Scaling
distributed machine learning with the parameter server", OSDI 2014.
"""

from __future__ import annotations

from fractions import Fraction

from thinwire.collective.algorithms.base import Algorithm, PartialSums, peers
from thinwire.collective.builder import ProgramBuilder, write_schedule
from thinwire.collective.schedule import Collective, CollectiveKind, Schedule, data, input_block, output_block
from thinwire.errors import UsageError

NAME = "star"


def all_reduce(num_ranks: int, *, hub: int = 0, wide: bool = False) -> Schedule:
    """``hub`` adds everybody's data, in accumulation dtype if ``wide``, and sends the sum to all."""
    _check_hub(hub, num_ranks)

    def body(ops: ProgramBuilder) -> None:
        _reduce_to(ops, hub, num_ranks, wide)
        ops.phase += 1
        _broadcast_from(ops, hub, num_ranks)

    collective = Collective(kind=CollectiveKind.ALL_REDUCE, num_ranks=num_ranks, num_chunks=1)
    return write_schedule(collective, NAME, body, params={"hub": hub, "wide": int(wide)})


def broadcast(num_ranks: int, *, root: int = 0) -> Schedule:
    """The root sends to everybody."""

    def body(ops: ProgramBuilder) -> None:
        _broadcast_from(ops, root, num_ranks)

    collective = Collective(kind=CollectiveKind.BROADCAST, num_ranks=num_ranks, num_chunks=1, root=root)
    return write_schedule(collective, NAME, body)


def reduce(num_ranks: int, *, root: int = 0, wide: bool = False) -> Schedule:
    """The root adds everybody's data, in accumulation dtype if ``wide``."""

    def body(ops: ProgramBuilder) -> None:
        _reduce_to(ops, root, num_ranks, wide)

    collective = Collective(kind=CollectiveKind.REDUCE, num_ranks=num_ranks, num_chunks=1, root=root)
    return write_schedule(collective, NAME, body, params={"wide": int(wide)})


def gather(num_ranks: int, *, root: int = 0) -> Schedule:
    """Everybody sends to the root."""

    def body(ops: ProgramBuilder) -> None:
        if ops.rank != root:
            ops.send(root, input_block(0))
            return
        ops.copy(input_block(0), output_block(root))
        for peer in peers(root, num_ranks):
            ops.recv(peer, output_block(peer))

    return write_schedule(Collective(kind=CollectiveKind.GATHER, num_ranks=num_ranks, root=root), NAME, body)


def scatter(num_ranks: int, *, root: int = 0) -> Schedule:
    """The root sends everybody its block."""

    def body(ops: ProgramBuilder) -> None:
        if ops.rank != root:
            ops.recv(root, output_block(0))
            return
        ops.copy(input_block(root), output_block(0))
        for peer in peers(root, num_ranks):
            ops.send(peer, input_block(peer))

    return write_schedule(Collective(kind=CollectiveKind.SCATTER, num_ranks=num_ranks, root=root), NAME, body)


def barrier(num_ranks: int, *, hub: int = 0) -> Schedule:
    """Empty messages: all to the hub, and once it has them, back to all."""
    _check_hub(hub, num_ranks)

    def body(ops: ProgramBuilder) -> None:
        if ops.rank != hub:
            ops.send(hub)
            ops.recv(hub)
            return
        entered = [ops.recv(peer) for peer in peers(hub, num_ranks)]
        for peer in peers(hub, num_ranks):
            ops.send(peer, after=entered)

    collective = Collective(kind=CollectiveKind.BARRIER, num_ranks=num_ranks)
    return write_schedule(collective, NAME, body, params={"hub": hub})


def _check_hub(hub: int, num_ranks: int) -> None:
    if not 0 <= hub < num_ranks:
        raise UsageError(f"the hub must be one of the ranks 0 to {num_ranks - 1}, not {hub}")


def _reduce_to(ops: ProgramBuilder, hub: int, num_ranks: int, wide: bool) -> None:
    if ops.rank != hub:
        ops.send(hub, data(0))
        return
    sums = PartialSums(ops, data, wide=wide)
    for peer in peers(hub, num_ranks):
        ops.recv_reduce(peer, sums.writable(0))
    sums.finish(0)


def _broadcast_from(ops: ProgramBuilder, hub: int, num_ranks: int) -> None:
    if ops.rank != hub:
        ops.recv(hub, data(0))
        return
    for peer in peers(hub, num_ranks):
        ops.send(peer, data(0))


ALGORITHMS = (
    Algorithm(
        name=NAME,
        kind=CollectiveKind.ALL_REDUCE,
        generate=all_reduce,
        steps_formula=lambda p, **_: 2,
        bytes_formula=lambda p, **_: p - 1,
        example_params=lambda p: ({}, {"hub": p - 1, "wide": True}),
    ),
    Algorithm(
        name=NAME,
        kind=CollectiveKind.BROADCAST,
        generate=broadcast,
        steps_formula=lambda p, **_: 1,
        bytes_formula=lambda p, **_: p - 1,
    ),
    Algorithm(
        name=NAME,
        kind=CollectiveKind.REDUCE,
        generate=reduce,
        steps_formula=lambda p, **_: 1,
        bytes_formula=lambda p, **_: 1,
        example_params=lambda p: ({}, {"wide": True}),
    ),
    Algorithm(
        name=NAME,
        kind=CollectiveKind.GATHER,
        generate=gather,
        steps_formula=lambda p, **_: 1,
        bytes_formula=lambda p, **_: Fraction(1, p),
    ),
    Algorithm(
        name=NAME,
        kind=CollectiveKind.SCATTER,
        generate=scatter,
        steps_formula=lambda p, **_: 1,
        bytes_formula=lambda p, **_: Fraction(p - 1, p),
    ),
    Algorithm(
        name=NAME,
        kind=CollectiveKind.BARRIER,
        generate=barrier,
        steps_formula=lambda p, **_: 2,
        bytes_formula=lambda p, **_: 0,
        example_params=lambda p: ({}, {"hub": p - 1}),
    ),
)
