"""Two-level hierarchical: inside each group, across the groups, inside again.

Groups are the ranks that are near to each other: of one host, rack or site. all_reduce is a direct reduce_scatter
inside each group, a direct all_reduce of each member with its counterparts in the other groups, and a direct
all_gather inside. Only 1 / (group size) of the data of a rank crosses the slow links between groups.

===========  =====  ============================================  ================================================
collective   steps  bytes a rank sends (g groups of q)            wins
===========  =====  ============================================  ================================================
all_reduce   4 (*)  2 (p - 1) / p, of which across groups         islands of fast links
                    2 (g - 1) / p
===========  =====  ============================================  ================================================

(*) 2 if there is only one group, or only groups of one. It loses on a flat network: twice the steps of direct.

Groups may be uneven. Then as many members of each group as the smallest has own chunks; the others hand in their data
and receive the result, and the larger groups' owners send to them as well.

Source: the two-level scheme is folklore of MPI on clusters of shared-memory hosts; in this form, with all members
active across, it is X. Jia et al., "Highly scalable deep learning training system with mixed-precision: training
ImageNet in four minutes", arXiv 1807.11205, 2018.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from thinwire.collective.algorithms import direct
from thinwire.collective.algorithms.base import Algorithm, PartialSums, shares
from thinwire.collective.builder import ProgramBuilder, write_schedule
from thinwire.collective.schedule import Collective, CollectiveKind, Schedule, data
from thinwire.errors import UsageError

NAME = "hierarchical"


class Groups:
    """Who is near to whom, and who owns what.

    Args:
        num_ranks: how many ranks there are.
        groups: for each rank the number of its group, any integers.
        group_size: instead of ``groups``: consecutive ranks form groups of this size, the last may be smaller.
            If neither is given, the largest size up to the square root that divides ``num_ranks``.

    Attributes:
        of_rank: for each rank the number of its group.
        members: for each group its ranks.
        num_owners: how many members of each group own chunks.
        owners: the ranks that own chunks; ``owners[c]`` owns chunk c. With even groups it is rank c.
    """

    def __init__(self, num_ranks: int, groups: Sequence[int] | None, group_size: int | None) -> None:
        if groups is None:
            if group_size is None:
                group_size = next(
                    size for size in range(math.isqrt(num_ranks), 0, -1) if num_ranks % size == 0
                )
            if group_size < 1:
                raise UsageError(f"a group has at least 1 rank, not {group_size}")
            groups = [rank // group_size for rank in range(num_ranks)]
        elif group_size is not None:
            raise UsageError("give groups or group_size, not both")
        if len(groups) != num_ranks:
            raise UsageError(f"groups must name the group of each of {num_ranks} ranks; got {tuple(groups)}")
        self.of_rank = tuple(sorted(set(groups)).index(group) for group in groups)
        self.members = [
            [rank for rank in range(num_ranks) if self.of_rank[rank] == group]
            for group in sorted(set(self.of_rank))
        ]
        self.num_owners = min(map(len, self.members))
        self.owners = sorted(rank for group in self.members for rank in group[: self.num_owners])

    def column(self, place: int) -> list[int]:
        """The owners with the same place in their groups."""
        return [group[place] for group in self.members]


def all_reduce(
    num_ranks: int,
    *,
    groups: Sequence[int] | None = None,
    group_size: int | None = None,
    weights: Sequence[int] | None = None,
) -> Schedule:
    """Owners have one chunk each, in the order of their ranks; see ``Groups``. ``weights`` are the chunks'."""
    plan = Groups(num_ranks, groups, group_size)
    chunk_of = {owner: chunk for chunk, owner in enumerate(plan.owners)}
    columns = [plan.column(place) for place in range(plan.num_owners)]

    def body(ops: ProgramBuilder) -> None:
        members = plan.members[plan.of_rank[ops.rank]]
        place = members.index(ops.rank)
        inside: list[list[int]] = [[chunk_of[owner] for owner in column] for column in columns]
        inside += [[]] * (len(members) - plan.num_owners)
        sums = PartialSums(ops, data)
        direct.reduce_scatter_phase(ops, members, place, inside, sums)
        ops.phase += 1
        if place < plan.num_owners:
            column = columns[place]
            across = [(chunk_of[owner],) for owner in column]
            direct.reduce_scatter_phase(ops, column, column.index(ops.rank), across, sums)
            direct.all_gather_phase(ops, column, column.index(ops.rank), across, data)
        ops.phase += 1
        direct.all_gather_phase(ops, members, place, inside, data)

    num_chunks = len(plan.owners)
    collective = Collective(kind=CollectiveKind.ALL_REDUCE, num_ranks=num_ranks, num_chunks=num_chunks)
    return write_schedule(
        collective, NAME, body, weights=shares(num_chunks, weights), params={"groups": plan.of_rank}
    )


def _steps(
    num_ranks: int, *, groups: Sequence[int] | None = None, group_size: int | None = None, **_: object
) -> int:
    plan = Groups(num_ranks, groups, group_size)
    return 2 * (len(plan.members) > 1) + 2 * (max(map(len, plan.members)) > 1)


def _bytes(
    num_ranks: int, *, groups: Sequence[int] | None = None, group_size: int | None = None, **_: object
) -> Fraction:
    """Of an owner in the largest group."""
    plan = Groups(num_ranks, groups, group_size)
    num_groups, share = len(plan.members), Fraction(1, plan.num_owners)
    inside = (plan.num_owners - 1 + max(map(len, plan.members)) - 1) * share
    return inside + Fraction(2 * (num_groups - 1), num_groups) * share


ALGORITHMS = (
    Algorithm(
        name=NAME,
        kind=CollectiveKind.ALL_REDUCE,
        generate=all_reduce,
        steps_formula=_steps,
        bytes_formula=_bytes,
        example_params=lambda p: [
            *({"group_size": size} for size in range(1, p + 1)),
            {"groups": tuple(rank % 2 for rank in range(p))},
        ],
    ),
)
