"""Every generator holds to its word, covers its collectives, and is the algorithm that its name says."""

from __future__ import annotations

import ast
import inspect
from collections import defaultdict
from types import ModuleType
from typing import Any

import pytest

from thinwire.collective import (
    Algorithm,
    Buffer,
    Collective,
    CollectiveKind,
    OpKind,
    Schedule,
    algorithms,
    algorithms_for,
    find_algorithm,
    generate,
    prove,
    register,
)
from thinwire.collective.algorithms import (
    _FAMILIES,
    binomial_tree,
    direct,
    double_binary_tree,
    halving_doubling,
    hierarchical,
    ring,
    round_robin,
    star,
    torus,
)
from thinwire.collective.algorithms.base import shares
from thinwire.errors import UsageError
from thinwire.testing.algorithms import check_algorithm


def name_of(algorithm: Algorithm) -> str:
    return f"{algorithm.name}-{algorithm.kind}"


def receivers(schedule: Schedule, rank: int, phase: int | None = None) -> list[int]:
    """To whom ``rank`` sends, in order."""
    return [
        op.peer
        for op in schedule.program(rank)
        if op.kind is OpKind.SEND and (phase is None or op.phase == phase)
    ]


@pytest.mark.parametrize("algorithm", algorithms(), ids=name_of)
def test_every_algorithm_passes_the_conformance_kit(algorithm: Algorithm) -> None:
    check_algorithm(algorithm)


@pytest.mark.parametrize("kind", CollectiveKind)
def test_every_collective_can_be_done_by_any_number_of_ranks(kind: CollectiveKind) -> None:
    assert algorithms_for(kind)
    for num_ranks in [2] if kind is CollectiveKind.SEND_RECV else range(1, 12):
        for algorithm in algorithms_for(kind):
            collective = Collective(
                kind=kind, num_ranks=num_ranks, root=num_ranks - 1 if algorithm.is_rooted else 0
            )
            assert prove(generate(collective, algorithm.name)).steps == algorithm.steps(num_ranks)


def test_one_rank_sends_nothing() -> None:
    for algorithm in algorithms():
        if algorithm.kind is not CollectiveKind.SEND_RECV:
            assert {op.kind for op in algorithm.generate(1).program(0)} <= {OpKind.COPY}


@pytest.mark.parametrize("family", _FAMILIES, ids=lambda family: family.NAME)
def test_every_family_names_its_source_and_where_it_wins(family: ModuleType) -> None:
    documentation = inspect.getdoc(family) or ""
    for word in ("Source: ", "steps", "bytes", "wins"):
        assert word in documentation
    for algorithm in family.ALGORITHMS:
        assert str(algorithm.kind) in documentation


@pytest.mark.parametrize("family", _FAMILIES, ids=lambda family: family.NAME)
def test_every_public_generator_of_a_family_is_registered(family: ModuleType) -> None:
    tree = ast.parse(inspect.getsource(family))
    written = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)} & set(CollectiveKind)
    assert written == {algorithm.kind for algorithm in family.ALGORITHMS}
    assert {algorithm.name for algorithm in family.ALGORITHMS} == {family.NAME}


def test_a_schedule_for_4096_ranks_costs_nothing_until_it_is_read() -> None:
    for algorithm in algorithms():
        if algorithm.kind is not CollectiveKind.SEND_RECV:
            schedule = algorithm.generate(4096)
            assert schedule.num_ranks == 4096
    assert len(ring.all_reduce(4096).program(17)) == 4 * 4095


class TestRegistry:
    @pytest.mark.parametrize(
        ("collective", "algorithm", "params", "message"),
        [
            (
                {"kind": "all_reduce"},
                "rong",
                {},
                "no algorithm 'rong' for all_reduce; choose one of: ring, direct",
            ),
            (
                {"kind": "all_produce"},
                "ring",
                {},
                "no collective 'all_produce'; choose one of: all_reduce, reduce",
            ),
            ({"kind": "all_reduce", "num_ranks": 0}, "ring", {}, "needs at least 1 rank, not 0"),
            ({"kind": "broadcast", "root": 4}, "ring", {}, "one of the ranks 0 to 3, not 4"),
            ({"kind": "all_reduce"}, "ring", {"wide": True}, "takes no parameter wide; it takes: weights"),
            (
                {"kind": "barrier"},
                "dissemination",
                {"x": 1, "num_ranks": 2},
                "no parameter num_ranks, x; it takes: none",
            ),
            ({"kind": "all_reduce"}, "ring", {"weights": (1, 2)}, "weights must be 4 integers"),
            ({"kind": "all_reduce"}, "star", {"hub": 4}, "the hub must be one of the ranks 0 to 3, not 4"),
            ({"kind": "barrier"}, "star", {"hub": -1}, "the hub must be one of the ranks 0 to 3, not -1"),
            ({"kind": "all_reduce"}, "torus", {"rows": 3}, "4 ranks cannot stand in 3 rows of one length"),
            ({"kind": "all_reduce"}, "hierarchical", {"group_size": 0}, "at least 1 rank, not 0"),
            ({"kind": "all_reduce"}, "hierarchical", {"groups": (0, 1)}, "the group of each of 4 ranks"),
            (
                {"kind": "all_reduce"},
                "hierarchical",
                {"groups": (0, 0, 1, 1), "group_size": 2},
                "groups or group_size, not both",
            ),
            ({"kind": "send_recv"}, "direct", {}, "send_recv is between 2 ranks, not 4"),
        ],
    )
    def test_mistakes_are_named(
        self, collective: dict[str, Any], algorithm: str, params: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(UsageError, match=message):
            generate(Collective(**{"num_ranks": 4, **collective}), algorithm, **params)

    def test_a_name_is_taken_once(self) -> None:
        with pytest.raises(UsageError, match="already an algorithm 'ring' for all_reduce"):
            register(find_algorithm("all_reduce", "ring"))

    def test_parameters_reach_the_generator(self) -> None:
        collective = Collective(kind=CollectiveKind.REDUCE, num_ranks=3, root=2)
        schedule = generate(collective, "direct", weights=(0, 1, 2), wide=True)
        assert schedule.weights == (0, 1, 2)
        assert schedule.collective.root == 2
        assert schedule.params == {"wide": 1}


@pytest.mark.parametrize("weights", [(1, 2), (1, 1, -1), (0, 0, 0)])
def test_shares_must_make_sense(weights: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="weights must be 3 integers"):
        shares(3, weights)


def test_the_ring_talks_to_its_neighbours_only() -> None:
    for rank in range(5):
        assert set(receivers(ring.all_reduce(5), rank)) == {(rank + 1) % 5}


def test_a_ring_step_waits_for_the_same_chunk_only() -> None:
    program = ring.all_reduce(8).program(3)
    for op in program:
        for dep in op.deps:
            assert {*program[dep].source, *program[dep].target} == {*op.source, *op.target}


@pytest.mark.parametrize("schedule", [direct.all_reduce(7), direct.all_to_all(7), round_robin.all_to_all(7)])
def test_no_two_ranks_address_the_same_peer_at_once(schedule: Schedule) -> None:
    for place in range(6):
        assert len({receivers(schedule, rank, phase=0)[place] for rank in range(7)}) == 7


def test_wide_sums_leave_the_accumulator_once() -> None:
    for schedule in (
        direct.all_reduce(5, wide=True),
        star.reduce(5, wide=True),
        direct.reduce_scatter(5, wide=True),
    ):
        for rank in range(5):
            ops = schedule.program(rank)
            into = [op for op in ops if op.reduce]
            assert all(ref.buffer is Buffer.ACCUMULATOR for op in into for ref in op.target)
            out = [op for op in ops if any(ref.buffer is Buffer.ACCUMULATOR for ref in op.source)]
            assert len(out) == (1 if into else 0)


def test_halving_is_the_butterfly_for_powers_of_two() -> None:
    for rank in range(16):
        assert receivers(halving_doubling.reduce_scatter(16), rank) == [
            rank ^ 8,
            rank ^ 4,
            rank ^ 2,
            rank ^ 1,
        ]


def test_nobody_sits_out_of_halving_for_other_numbers() -> None:
    proof = prove(halving_doubling.all_reduce(11))
    assert len(set(proof.weight_sent)) == 1


def test_inner_ranks_of_one_binary_tree_are_leaves_of_the_other() -> None:
    for num_ranks in range(2, 40):
        parents = [defaultdict[int, set[int]](set) for _ in range(2)]
        schedule = double_binary_tree.all_reduce(num_ranks)
        for rank in range(num_ranks):
            for op in schedule.program(rank):
                if op.kind is OpKind.RECV and op.reduce:
                    parents[op.target[0].chunk][rank].add(op.peer)
        assert not parents[0].keys() & parents[1].keys()
        assert max(len(children) for tree in parents for children in tree.values()) <= 2


def test_subtrees_of_the_binomial_tree_are_consecutive_ranks() -> None:
    tree = binomial_tree.Tree(2, 11, root=9)
    assert tree.parent == 9
    assert tree.children == [3, 4]
    assert tree.subtree(2) == [2, 3, 4, 5]


def test_the_torus_talks_along_its_row_and_its_column() -> None:
    for rank in range(12):
        row, column = divmod(rank, 4)
        peers = {row * 4 + (column + 1) % 4, (rank + 4) % 12}
        assert set(receivers(torus.all_reduce(12, rows=3), rank)) == peers


def test_only_one_share_of_the_data_crosses_between_groups() -> None:
    num_groups, size = 3, 4
    schedule = hierarchical.all_reduce(num_groups * size, group_size=size)
    for rank in range(num_groups * size):
        across = [
            op for op in schedule.program(rank) if op.kind is OpKind.SEND and op.peer // size != rank // size
        ]
        assert sum(len(op.source) for op in across) == 2 * (num_groups - 1)  # of 12 chunks
        assert {op.peer % size for op in across} == {rank % size}


def test_uneven_groups_have_as_many_owners_as_the_smallest() -> None:
    plan = hierarchical.Groups(7, groups=(5, 5, 9, 9, 9, 5, 5), group_size=None)
    assert plan.members == [[0, 1, 5, 6], [2, 3, 4]]
    assert plan.owners == [0, 1, 2, 3, 4, 5]
    assert prove(hierarchical.all_reduce(7, groups=(5, 5, 9, 9, 9, 5, 5))).messages_sent[6] == 3
