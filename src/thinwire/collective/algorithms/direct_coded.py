"""Direct with a codec: every rank owns one chunk, and what travels is encoded.

all_reduce encodes each contribution once, for its owner, who decodes and adds it. The owner encodes the sum once and
sends the same payload to everybody; every rank decodes that payload, the owner too, so all end with the same bytes. A
contribution goes through two encodes, whatever the number of ranks (a ring would encode at every hop), and the owner's
own through one. reduce_scatter is the first half; all_gather the second.

=============================  =====  ===================  =======
collective                     steps  bytes a rank sends   encodes
=============================  =====  ===================  =======
all_reduce                     2      2 (p - 1) / p        2
reduce_scatter, all_gather     1      (p - 1) / p          1
=============================  =====  ===================  =======

Bytes are those of the payloads. A rank alone encodes nothing. It wins where the network is so slow that fewer bytes
are worth the encoding; with many ranks it loses as ``direct`` does.

Source: the two-way compression with error feedback at both ends of S. Zheng et al., "Communication-efficient
distributed blockwise momentum SGD with error-feedback", NeurIPS 2019, with the server cut into one shard a rank, as in
G. Wang et al., "ZeRO++: extremely efficient collective communication for giant model training", ICLR 2024 (qgZ).
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from thinwire.collective.algorithms.base import Algorithm, PartialSums, block_sums, peers, shares
from thinwire.collective.algorithms.direct import WIDE_OR_NOT
from thinwire.collective.builder import ProgramBuilder, write_schedule
from thinwire.collective.schedule import (
    Collective,
    CollectiveKind,
    Ref,
    Schedule,
    data,
    input_block,
    output_block,
)

NAME = "direct_coded"


def all_reduce(num_ranks: int, *, weights: Sequence[int] | None = None, wide: bool = False) -> Schedule:
    """Chunk c is owned by rank c, and has its weight."""

    def body(ops: ProgramBuilder) -> None:
        if num_ranks == 1:
            return
        sums = PartialSums(ops, data, wide=wide)
        _reduce_scatter_phase(ops, num_ranks, sums)
        ops.phase += 1
        payload = ops.encode(sums.ref(ops.rank))
        _all_gather_phase(ops, payload, [data(chunk) for chunk in range(num_ranks)])

    collective = Collective(kind=CollectiveKind.ALL_REDUCE, num_ranks=num_ranks, num_chunks=num_ranks)
    return write_schedule(
        collective, NAME, body, weights=shares(num_ranks, weights), params={"wide": int(wide)}
    )


def reduce_scatter(num_ranks: int, *, wide: bool = False) -> Schedule:
    """Everybody sends block r, encoded, straight to rank r. The sum is not encoded."""

    def body(ops: ProgramBuilder) -> None:
        sums = block_sums(ops, wide=wide)
        _reduce_scatter_phase(ops, num_ranks, sums)
        sums.finish(ops.rank)

    collective = Collective(kind=CollectiveKind.REDUCE_SCATTER, num_ranks=num_ranks)
    return write_schedule(collective, NAME, body, params={"wide": int(wide)})


def all_gather(num_ranks: int) -> Schedule:
    """Everybody sends its block, encoded, to everybody; its own becomes what the others make of it."""

    def body(ops: ProgramBuilder) -> None:
        if num_ranks == 1:
            ops.copy(input_block(0), output_block(0))
            return
        payload = ops.encode(input_block(0))
        _all_gather_phase(ops, payload, [output_block(origin) for origin in range(num_ranks)])

    return write_schedule(Collective(kind=CollectiveKind.ALL_GATHER, num_ranks=num_ranks), NAME, body)


def _reduce_scatter_phase(ops: ProgramBuilder, num_ranks: int, sums: PartialSums) -> None:
    """Add up, at every rank, its chunk of all ranks' contributions, which travel encoded."""
    for distance in range(1, num_ranks):
        above, below = (ops.rank + distance) % num_ranks, (ops.rank - distance) % num_ranks
        ops.send(above, ops.encode(sums.ref(above)))
        total = sums.writable(ops.rank)
        ops.decode_reduce(ops.recv_payload(below, like=total), total)


def _all_gather_phase(ops: ProgramBuilder, payload: Ref, chunks: Sequence[Ref]) -> None:
    """Bring this rank's ``payload`` to all, and decode everybody's, this rank's own included, into ``chunks``."""
    others = peers(ops.rank, len(chunks))
    for peer in others:
        ops.send(peer, payload)
    ops.decode(payload, chunks[ops.rank])
    for peer in reversed(others):
        ops.decode(ops.recv_payload(peer, like=chunks[peer]), chunks[peer])


ALGORITHMS = (
    Algorithm(
        name=NAME,
        kind=CollectiveKind.ALL_REDUCE,
        generate=all_reduce,
        steps_formula=lambda p, **_: 2,
        bytes_formula=lambda p, **_: Fraction(2 * (p - 1), p),
        encodes=2,
        example_params=lambda p: WIDE_OR_NOT,
    ),
    Algorithm(
        name=NAME,
        kind=CollectiveKind.REDUCE_SCATTER,
        generate=reduce_scatter,
        steps_formula=lambda p, **_: 1,
        bytes_formula=lambda p, **_: Fraction(p - 1, p),
        encodes=1,
        example_params=lambda p: WIDE_OR_NOT,
    ),
    Algorithm(
        name=NAME,
        kind=CollectiveKind.ALL_GATHER,
        generate=all_gather,
        steps_formula=lambda p: 1,
        bytes_formula=lambda p: Fraction(p - 1, p),
        encodes=1,
    ),
)
