"""Draw an all_reduce from its schedule: who holds what before, between and after its phases, and what travels.

A cell is a chunk of one rank's gradients; its stripes are the ranks whose contribution it holds. The stripes are not
painted by hand: the schedule's messages are followed, phase by phase. Holds for schedules whose phases send only what
was there when the phase began, as the direct algorithm's do; the end is checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from thinwire.collective import Collective, CollectiveKind, OpKind, Schedule, generate

COLOURS = ("#3b6fb6", "#d9772b", "#4d9a57", "#9a4f96")
INK, FAINT, PAPER = "#22303c", "#c9d2da", "#ffffff"
CELL_WIDTH, CELL_HEIGHT = 44, 36
RANK_GAP, ROW_GAP = 44, 118
FONT = 'font-family="Helvetica, Arial, sans-serif"'
LEFT, TOP, RIGHT = 196, 60, 28
CAPTIONS = (
    ("loss.backward()", "each rank has", "its own gradients"),
    ("reduce", "each rank adds up", "one quarter"),
    ("optimizer.step()", "the same bytes", "on every rank"),
)

Holdings = list[list[frozenset[int]]]  # [rank][chunk] -> the ranks whose contribution is in it
Message = tuple[int, int, int]  # from, to, chunk


def all_reduce_picture(num_ranks: int = 4) -> str:
    """The picture as SVG."""
    schedule = generate(Collective(kind=CollectiveKind.ALL_REDUCE, num_ranks=num_ranks), "direct")
    rows = list(_phases(schedule))
    width = LEFT + RIGHT + num_ranks * (num_ranks * CELL_WIDTH) + (num_ranks - 1) * RANK_GAP
    height = TOP + len(rows) * (CELL_HEIGHT + ROW_GAP) - ROW_GAP + 24
    body = [
        line for index, (holdings, messages) in enumerate(rows) for line in _row(index, holdings, messages)
    ]
    titles = [
        _text(_left(rank, 0, num_ranks) + num_ranks * CELL_WIDTH / 2, 32, f"rank {rank}", "middle", bold=True)
        for rank in range(num_ranks)
    ]
    captions = [
        _text(24, _top(index) + 4 + 20 * line, words, "start", bold=line == 0)
        for index, caption in enumerate(CAPTIONS)
        for line, words in enumerate(caption)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" {FONT}>',
            "<title>What an all_reduce of four ranks does, drawn from its schedule</title>",
            f'<rect width="{width}" height="{height}" rx="10" fill="{PAPER}"/>',
            *titles,
            *body,
            *captions,
            "</svg>\n",
        ]
    )


def _phases(schedule: Schedule) -> Iterator[tuple[Holdings, list[Message]]]:
    """What everybody holds before each phase with the messages of that phase; at the end, with none."""
    ranks = range(schedule.num_ranks)
    holdings: Holdings = [[frozenset([rank]) for _ in schedule.weights] for rank in ranks]
    sends = [
        (op.phase, rank, op) for rank in ranks for op in schedule.program(rank) if op.kind is OpKind.SEND
    ]
    for phase, group in groupby(sorted(sends, key=lambda send: send[:2]), key=lambda send: send[0]):
        messages = [(rank, op.peer, ref.chunk) for _, rank, op in group for ref in op.source]
        yield holdings, messages
        after = [list(chunks) for chunks in holdings]
        reduces = {
            (rank, op.peer): op.reduce
            for rank in ranks
            for op in schedule.program(rank)
            if op.kind is OpKind.RECV and op.phase == phase
        }
        for sender, receiver, chunk in messages:
            kept = after[receiver][chunk] if reduces[receiver, sender] else frozenset()
            assert not kept & holdings[sender][chunk], "a contribution would be counted twice"
            after[receiver][chunk] = kept | holdings[sender][chunk]
        holdings = after
    assert all(chunk == frozenset(ranks) for chunks in holdings for chunk in chunks)
    yield holdings, []


def _row(index: int, holdings: Holdings, messages: list[Message]) -> Iterator[str]:
    num_ranks = len(holdings)
    for sender, receiver, chunk in messages:
        start_x = _left(sender, chunk, num_ranks) + CELL_WIDTH / 2
        end_x = _left(receiver, chunk, num_ranks) + CELL_WIDTH / 2
        start_y, end_y = _top(index) + CELL_HEIGHT, _top(index + 1)
        middle = (start_y + end_y) / 2
        yield (
            f'<path d="M{start_x} {start_y} C{start_x} {middle} {end_x} {middle} {end_x} {end_y}" fill="none" '
            f'stroke="{COLOURS[sender]}" stroke-width="2" stroke-opacity="0.55"/>'
        )
    for rank, chunks in enumerate(holdings):
        for chunk, contributions in enumerate(chunks):
            yield from _cell(_left(rank, chunk, num_ranks), _top(index), sorted(contributions))


def _cell(left: float, top: float, contributions: list[int]) -> Iterator[str]:
    stripe = (CELL_WIDTH - 4) / len(contributions)
    for place, rank in enumerate(contributions):
        yield (
            f'<rect x="{left + 2 + place * stripe:g}" y="{top}" width="{stripe:g}" height="{CELL_HEIGHT}" '
            f'fill="{COLOURS[rank]}"/>'
        )
    yield (
        f'<rect x="{left + 2}" y="{top}" width="{CELL_WIDTH - 4}" height="{CELL_HEIGHT}" fill="none" '
        f'stroke="{FAINT}"/>'
    )


def _left(rank: int, chunk: int, num_ranks: int) -> float:
    return LEFT + rank * (num_ranks * CELL_WIDTH + RANK_GAP) + chunk * CELL_WIDTH


def _top(row: int) -> float:
    return TOP - 10 + row * (CELL_HEIGHT + ROW_GAP)


def _text(x: float, y: float, words: str, anchor: str, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:g}" y="{y:g}" fill="{INK}" font-size="16" text-anchor="{anchor}"{weight}>{words}</text>'
    )
