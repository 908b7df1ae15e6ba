"""Lowering: one rank's program and the sizes of its chunks become segments with dependencies, ready to execute.

An op becomes one segment if all its chunks together are small, else several: each chunk is cut on a grid that depends
on nothing but the chunk's size, so that sender and receiver, and every op of one rank that touches the chunk, cut it
at the same places. Dependencies are then found segment by segment: a segment waits for those earlier segments
that conflict with it on the same elements (one of the two writes) and belong to ops that the schedule orders before
it. That is what lets the first segment of a ring step travel on while the last one is still arriving.

A payload is cut where the chunk that it stands for is, so that encoding, transfer and decoding follow each other
segment by segment. How long each payload will be is known only when it is encoded; here it has a bound.

A lowered program holds no data and is shared by all operations of the same shape. Not here: running it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import NamedTuple

from thinwire.collective.schedule import Buffer, Op, OpKind, Program, Ref
from thinwire.collective.selection import Place


class Grid(NamedTuple):
    """How chunks are cut. All ranks of a group must use the same.

    Attributes:
        uncut_bytes_max: what is no larger is not cut. Bytes are those that travel: of payloads, where they do.
        segment_bytes_min, segment_bytes_max: limits of the segments of what is cut.
        pieces: into about how many pieces a chunk is cut, within those limits.
        multiple: a segment has a multiple of so many elements, unless it is the chunk's last.
    """

    uncut_bytes_max: int
    segment_bytes_min: int
    segment_bytes_max: int
    pieces: int
    multiple: int = 1


# Within a host a segment costs more for being there than for its bytes: few and large. Measured with 4 ranks on 2
# cores: cut into pieces of 512 KiB, an all-reduce of 1 MiB takes 3.2 ms, uncut 1.9 ms.
LOCAL_GRID = Grid(uncut_bytes_max=8 << 20, segment_bytes_min=2 << 20, segment_bytes_max=4 << 20, pieces=1)
# Over a network the last segment of one phase delays the next phase by its time on the wire: many and small.
NETWORK_GRID = Grid(
    uncut_bytes_max=64 << 10, segment_bytes_min=64 << 10, segment_bytes_max=256 << 10, pieces=32
)


# Whoever encodes to save bytes has slow links, wherever the ranks are; but handing a segment from step to step costs a
# core more than coding its values does: few. No codec's block is longer than the multiple, so none is cut.
CODED_GRID = Grid(
    uncut_bytes_max=32 << 10,
    segment_bytes_min=32 << 10,
    segment_bytes_max=1 << 20,
    pieces=2,
    multiple=1 << 16,
)


def grid_for(place: Place, *, is_coded: bool = False) -> Grid:
    """The grid of groups that are at ``place``."""
    if is_coded:
        return CODED_GRID
    return NETWORK_GRID if place is Place.NETWORK else LOCAL_GRID


PayloadSegment = tuple[int, int]
"""(PAYLOAD chunk, first element)"""


class Piece(NamedTuple):
    """Elements ``[begin, end)`` of one chunk of one buffer."""

    buffer: Buffer
    chunk: int
    begin: int
    end: int


class Segment(NamedTuple):
    """The unit of execution and of the wire.

    Attributes:
        num_bytes: of what it moves; of a payload, at most.
        dependents: indices of segments that wait for this one.
        reads_payload, writes_payload: whether its source or its target is a segment of a payload.
    """

    kind: OpKind
    reduce: bool
    peer: int
    message: int
    position: int
    source: tuple[Piece, ...]
    target: tuple[Piece, ...]
    num_bytes: int
    num_deps: int
    dependents: tuple[int, ...]
    reads_payload: bool = False
    writes_payload: bool = False

    @property
    def payload(self) -> PayloadSegment:
        """Which segment of which payload it reads or writes."""
        piece = (self.source if self.reads_payload else self.target)[0]
        return piece.chunk, piece.begin


class Readers(NamedTuple):
    """Who reads one segment of a payload: how many segments in all, and how many SENDs among them."""

    total: int
    sends: int

    def and_one(self, *, sends: bool) -> Readers:
        return Readers(self.total + 1, self.sends + sends)


class Lowered(NamedTuple):
    """A program of one rank for one set of sizes.

    Attributes:
        segments: all segments; an index into this tuple names one.
        num_deps: how many segments each of them waits for.
        first: those that wait for none.
        peers: all ranks that this one sends to or receives from.
        receives: (peer, message, segment) -> index of the RECV segment.
        offsets: for each segment, how many bytes its op moves before it.
        run_ends: for each segment, the index after the last one that may share a frame with it: of the same SEND or
            RECV, and not encoded.
        bytes_to, bytes_from: what this rank sends to and receives from each peer; of encoded segments, at most.
        answering: peers that send to this rank only in answer to what they have received from it.
        frames_to: how many segments that is.
        readers: (payload, begin) -> how many segments read that segment of a payload, and how many of them send it.
        staging_bytes: an upper bound of what must be held because it may arrive before its dependencies are met, and
            of all payloads.
    """

    segments: tuple[Segment, ...]
    num_deps: tuple[int, ...]
    first: tuple[int, ...]
    peers: tuple[int, ...]
    receives: dict[tuple[int, int, int], int]
    offsets: tuple[int, ...]
    run_ends: tuple[int, ...]
    bytes_to: dict[int, int]
    bytes_from: dict[int, int]
    answering: frozenset[int]
    frames_to: dict[int, int]
    readers: dict[PayloadSegment, Readers]
    staging_bytes: int

    def num_bytes(self, run: range) -> int:
        """What consecutive segments of one op move."""
        last = run[-1]
        return self.offsets[last] + self.segments[last].num_bytes - self.offsets[run.start]

    def run_of(self, first: int, num_bytes: int) -> range | None:
        """The segments from ``first`` on that move so many bytes and may share a frame; None: there are none such."""
        end = bisect_left(self.offsets, self.offsets[first] + num_bytes, first + 1, self.run_ends[first])
        run = range(first, end)
        return run if self.num_bytes(run) == num_bytes else None

    def front(self, run: range, num_bytes: int) -> range:
        """The first segments of a run, one at least, as long as they move no more than that."""
        if self.num_bytes(run) <= num_bytes:
            return run
        end = bisect_right(self.offsets, self.offsets[run.start] + num_bytes, run.start + 1, run.stop) - 1
        return range(run.start, max(run.start + 1, end))


def segment_bytes_for(chunk_bytes: int, grid: Grid) -> int:
    """How a chunk is cut: a power of two between the grid's limits.

    >>> grid = Grid(uncut_bytes_max=1024, segment_bytes_min=1024, segment_bytes_max=8192, pieces=4)
    >>> segment_bytes_for(16384, grid), segment_bytes_for(100, grid), segment_bytes_for(1 << 30, grid)
    (4096, 1024, 8192)
    """
    wanted = max(1, chunk_bytes // grid.pieces)
    return min(grid.segment_bytes_max, max(grid.segment_bytes_min, 1 << (wanted - 1).bit_length()))


def pooled_bytes(num_bytes: int) -> int:
    """What a buffer for so many bytes takes: at most an eighth more, so that buffers fit what comes after.

    >>> pooled_bytes(0), pooled_bytes(100), pooled_bytes(1 << 20), pooled_bytes((1 << 20) + 1)
    (64, 104, 1048576, 1179648)
    """
    if num_bytes <= 64:
        return 64
    step = 1 << max(3, (num_bytes - 1).bit_length() - 4)
    return -(-num_bytes // step) * step


def lower(
    program: Program,
    num_elements: Callable[[Ref], int],
    itemsize: int,
    grid: Grid,
    payload_bound: Callable[[int], int] | None = None,
    answers: Callable[[int], bool] = lambda peer: False,
) -> Lowered:
    """Cut ``program`` into segments.

    Args:
        program: one rank's ops.
        num_elements: the size of each chunk.
        itemsize: bytes of an element on the wire.
        grid: where chunks are cut.
        payload_bound: the most bytes that a payload of so many elements may have; None: nothing is encoded.
        answers: whether a peer sends to this rank only in answer; see ``only_answers``.
    """
    bytes_of = payload_bound or (lambda elements: elements * itemsize)
    pieces_of_op = [_cut(op, num_elements, bytes_of, grid) for op in program]
    first_index: list[int] = []
    total = 0
    for cuts in pieces_of_op:
        first_index.append(total)
        total += len(cuts)
    dependencies = _dependencies(program, pieces_of_op, first_index)
    dependents: list[list[int]] = [[] for _ in range(total)]
    for index, needs in enumerate(dependencies):
        for need in needs:
            dependents[need].append(index)

    segments: list[Segment] = []
    offsets: list[int] = []
    run_ends: list[int] = []
    receives: dict[tuple[int, int, int], int] = {}
    bytes_to: dict[int, int] = {}
    bytes_from: dict[int, int] = {}
    frames_to: dict[int, int] = {}
    messages: dict[tuple[OpKind, int], int] = {}
    readers: dict[PayloadSegment, Readers] = {}
    staging_bytes = 0
    for op, cuts in zip(program, pieces_of_op, strict=True):
        message = messages.get((op.kind, op.peer), 0)
        messages[op.kind, op.peer] = message + 1
        offset = 0
        for position, (source, target) in enumerate(cuts):
            index = len(segments)
            elements = sum(piece.end - piece.begin for piece in (source or target))
            reads_payload, writes_payload = (
                any(piece.buffer is Buffer.PAYLOAD for piece in pieces) for pieces in (source, target)
            )
            is_payload = reads_payload or writes_payload
            num_bytes = bytes_of(elements) if is_payload else elements * itemsize
            segment = Segment(
                op.kind,
                op.reduce,
                op.peer,
                message,
                position,
                source,
                target,
                num_bytes,
                len(dependencies[index]),
                tuple(dependents[index]),
                reads_payload,
                writes_payload,
            )
            segments.append(segment)
            offsets.append(offset)
            offset += num_bytes
            is_alone = is_payload or op.kind not in (OpKind.SEND, OpKind.RECV)
            run_ends.append(index + (1 if is_alone else len(cuts) - position))
            if reads_payload:
                readers[segment.payload] = readers[segment.payload].and_one(sends=op.kind is OpKind.SEND)
            if writes_payload:
                readers[segment.payload] = Readers(0, 0)
                staging_bytes += pooled_bytes(num_bytes)
            if op.kind is OpKind.SEND:
                bytes_to[op.peer] = bytes_to.get(op.peer, 0) + num_bytes
                frames_to[op.peer] = frames_to.get(op.peer, 0) + 1
            elif op.kind is OpKind.RECV:
                receives[op.peer, message, position] = index
                bytes_from[op.peer] = bytes_from.get(op.peer, 0) + num_bytes
                if dependencies[index] and not writes_payload:
                    staging_bytes += num_bytes
    return Lowered(
        segments=tuple(segments),
        num_deps=tuple(segment.num_deps for segment in segments),
        first=tuple(index for index, segment in enumerate(segments) if not segment.num_deps),
        peers=tuple({**bytes_from, **bytes_to}),
        receives=receives,
        offsets=tuple(offsets),
        run_ends=tuple(run_ends),
        bytes_to=bytes_to,
        bytes_from=bytes_from,
        answering=frozenset(filter(answers, bytes_from)),
        frames_to=frames_to,
        readers=readers,
        staging_bytes=staging_bytes,
    )


def only_answers(program: Program, rank: int) -> bool:
    """Whether whoever runs ``program`` sends nothing to ``rank`` before it has received something from it."""
    is_after: list[bool] = []  # whether each op comes after a RECV from that rank, or is one
    for op in program:
        is_answer = any(is_after[dep] for dep in op.deps)
        if op.kind is OpKind.SEND and op.peer == rank and not is_answer:
            return False
        is_after.append(is_answer or (op.kind is OpKind.RECV and op.peer == rank))
    return True


Cut = tuple[tuple[Piece, ...], tuple[Piece, ...]]  # (source pieces, target pieces) of one segment


def _cut(op: Op, num_elements: Callable[[Ref], int], bytes_of: Callable[[int], int], grid: Grid) -> list[Cut]:
    sizes = [num_elements(ref) for ref in (op.source or op.target)]

    def whole(refs: tuple[Ref, ...]) -> tuple[Piece, ...]:
        return tuple(Piece(ref.buffer, ref.chunk, 0, size) for ref, size in zip(refs, sizes, strict=True))

    if bytes_of(sum(sizes)) <= grid.uncut_bytes_max:
        return [(whole(op.source) if op.source else (), whole(op.target) if op.target else ())]
    cuts: list[Cut] = []
    for position, size in enumerate(sizes):
        step = _step(size, bytes_of(size), grid)
        for begin in range(0, size, step):
            end = min(begin + step, size)
            source, target = (
                (Piece(refs[position].buffer, refs[position].chunk, begin, end),) if refs else ()
                for refs in (op.source, op.target)
            )
            cuts.append((source, target))
    return cuts


def _step(num_elements: int, num_bytes: int, grid: Grid) -> int:
    """How many elements of a chunk, whose transfer takes ``num_bytes``, make a segment."""
    fitting = num_elements * segment_bytes_for(num_bytes, grid) // max(1, num_bytes)
    return max(1, fitting // grid.multiple) * grid.multiple


def _dependencies(program: Program, cuts: list[list[Cut]], first_index: list[int]) -> list[list[int]]:
    """For each segment, the segments it must wait for."""
    ancestors: list[int] = []  # bit set of the ops ordered before each op
    touching: dict[Ref, list[tuple[int, bool]]] = {}  # ref -> (op, writes it), in list order
    result: list[list[int]] = []
    for number, op in enumerate(program):
        before = 0
        for dep in op.deps:
            before |= ancestors[dep] | 1 << dep
        ancestors.append(before)

        accesses = [(ref, False) for ref in op.source] + [(ref, True) for ref in op.target]
        conflicting: set[int] = set()  # earlier ops to compare with, segment by segment
        for ref, writes in accesses:
            left = before
            for other, other_writes in reversed(touching.get(ref, ())):
                if left >> other & 1 and (writes or other_writes):
                    conflicting.add(other)
                    if other_writes:
                        left &= ~ancestors[other]  # that one waits for these itself
        shared = {ref for ref, _ in accesses}
        # A dependency between ops that have no chunk in common is pure order: all segments of one before the other.
        ordered = [dep for dep in op.deps if not shared & {*program[dep].source, *program[dep].target}]
        for ref, writes in accesses:
            touching.setdefault(ref, []).append((number, writes))

        for source, target in cuts[number]:
            needs = [first_index[dep] + k for dep in ordered for k in range(len(cuts[dep]))]
            for other in sorted(conflicting):
                needs += [
                    first_index[other] + k
                    for k, (other_source, other_target) in enumerate(cuts[other])
                    if _overlap(target, other_source)
                    or _overlap(target, other_target)
                    or _overlap(source, other_target)
                ]
            result.append(needs)
    return result


def _overlap(pieces: tuple[Piece, ...], others: tuple[Piece, ...]) -> bool:
    return any(
        a.buffer == b.buffer and a.chunk == b.chunk and ((a.begin < b.end and b.begin < a.end) or a == b)
        for a in pieces
        for b in others
    )
