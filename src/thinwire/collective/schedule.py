"""A Schedule is data: what every rank of a collective sends, receives and reduces, in chunks and never in bytes.

A ``Collective`` says what must be true before and after. A ``Schedule`` says how: for each rank an ordered list
of ``Op``, each naming the chunks it reads and writes and the earlier ops of the same rank it waits for. Sizes
are symbolic (chunks with integer weights), so one schedule serves every size; programs expand lazily per rank,
so a schedule for 4096 ranks costs nothing to hold.

The meaning of an op list (what the checker proves and the executor runs):

* an op may start when all its ``deps`` have completed; ops not ordered by deps may run in any order, or at once;
* an op moves its chunks side by side: piece i is its i-th source with its i-th target. Of two ops of a rank that
  deps order, directly or through others, a piece of the later waits for the pieces of the earlier that it conflicts
  with (both touch one chunk, one writes it), and within them segment by segment. Only where an op and one of its
  deps have no chunk in common does the dep hold for the whole op;
* the k-th SEND of rank a to rank b is received by the k-th RECV of rank b from rank a (both in list order). They name
  one channel, and their chunks have the same sizes, one by one;
* a SEND completes when its bytes have left; a RECV when they have been stored, or reduced into the target;
* ``RECV reduce``: target = target + incoming. REDUCE: target = target + source. COPY: target = source.
  "+" stands for the collective's reduce op, always with the accumulated value on the left;
* ENCODE: target, a payload, = the encoded source. DECODE: target = what the source, a payload, stands for; DECODE
  ``reduce``: target = target + that. Encoding may lose something, and never the same thing twice: two encodes of one
  value are two payloads. Decoding one payload gives the same bytes everywhere. A payload is written once.

Segmentation is not here: the executor cuts each op into segments and lets dependencies hold segment by segment.
Neither are bytes, dtypes, sockets, or time.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import NamedTuple

import msgspec

IR_VERSION = 1


class CollectiveKind(enum.StrEnum):
    ALL_REDUCE = "all_reduce"
    REDUCE = "reduce"
    BROADCAST = "broadcast"
    ALL_GATHER = "all_gather"
    GATHER = "gather"
    SCATTER = "scatter"
    REDUCE_SCATTER = "reduce_scatter"
    ALL_TO_ALL = "all_to_all"
    BARRIER = "barrier"
    SEND_RECV = "send_recv"  # two ranks: rank 0 sends DATA to rank 1


class Buffer(enum.StrEnum):
    """The memories of one rank.

    DATA is the in-place buffer of all_reduce, reduce, broadcast, barrier and send_recv, cut into the schedule's
    weighted chunks. The others have INPUT (never written) and OUTPUT blocks. SCRATCH holds values of the
    collective's dtype. ACCUMULATOR holds values of the accumulation dtype (float32 for half types, else the
    same); it is written by COPY, REDUCE, RECV reduce and DECODE, read by COPY and ENCODE, and never sent. PAYLOAD holds
    encoded chunks; it is written by ENCODE and RECV, read by DECODE and SEND, in ops of one chunk.
    """

    DATA = "data"
    INPUT = "input"
    OUTPUT = "output"
    SCRATCH = "scratch"
    ACCUMULATOR = "accumulator"
    PAYLOAD = "payload"

    __hash__ = str.__hash__  # equal strings are equal; and unlike Enum's, it is not a call into Python


class Ref(NamedTuple):
    """One chunk of one buffer of the rank at hand."""

    buffer: Buffer
    chunk: int

    def __str__(self) -> str:
        return f"{self.buffer}[{self.chunk}]"


def data(chunk: int) -> Ref:
    """Chunk of the in-place buffer."""
    return Ref(Buffer.DATA, chunk)


def input_block(block: int) -> Ref:
    """Block of the buffer that is only read."""
    return Ref(Buffer.INPUT, block)


def output_block(block: int) -> Ref:
    """Block of the result."""
    return Ref(Buffer.OUTPUT, block)


class OpKind(enum.StrEnum):
    SEND = "send"
    RECV = "recv"
    COPY = "copy"
    REDUCE = "reduce"
    ENCODE = "encode"
    DECODE = "decode"


class Op(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step of one rank.

    SEND reads ``source``; RECV writes ``target`` (adding to it if ``reduce``); COPY, REDUCE, ENCODE and DECODE (adding
    to it if ``reduce``) read ``source[i]`` into ``target[i]``. ``deps`` are indices of earlier ops of the same rank.
    """

    kind: OpKind
    peer: int = -1
    source: tuple[Ref, ...] = ()
    target: tuple[Ref, ...] = ()
    reduce: bool = False
    deps: tuple[int, ...] = ()
    channel: int = 0
    phase: int = 0


class Collective(msgspec.Struct, frozen=True, kw_only=True):
    """What must be true before and after.

    ``num_chunks`` is the number of DATA chunks (all_reduce, reduce, broadcast, send_recv; 0 for barrier). The
    block collectives always have ``num_ranks`` blocks in their larger buffer and one in the smaller:

    ================  ==========================  ==========================================
    kind              INPUT                       OUTPUT
    ================  ==========================  ==========================================
    all_gather        1 block                     num_ranks blocks, block r from rank r
    gather            1 block                     num_ranks blocks at ``root``, none elsewhere
    scatter           num_ranks blocks at root    1 block
    reduce_scatter    num_ranks blocks            1 block: the sum of everybody's block r
    all_to_all        num_ranks blocks            num_ranks blocks: block s is rank s's block r
    ================  ==========================  ==========================================
    """

    kind: CollectiveKind
    num_ranks: int
    num_chunks: int = 0
    root: int = 0


Program = tuple[Op, ...]


class Schedule:
    """One way of doing one collective. Immutable; compared, hashed and named by its content's description.

    Args:
        collective: what is done.
        algorithm: the generator's name, e.g. ``"ring"``.
        program: rank -> ops of that rank. Called at most once a rank, when first needed.
        weights: for DATA collectives, the integer weight of each chunk (default: all equal). Chunk c of n
            elements is ``[n * sum(w[:c]) // W, n * sum(w[:c+1]) // W)`` with ``W = sum(w)``.
        scratch: rank -> for each SCRATCH chunk of that rank, the ref whose size it has.
        accumulators: the same for ACCUMULATOR chunks.
        payloads: rank -> for each PAYLOAD chunk of that rank, the ref whose encoded form it holds.
        even_blocks: True if the schedule is right only where all blocks of the collective have one size.
        params: what the generator was called with, for printing and for the fingerprint.
    """

    def __init__(
        self,
        collective: Collective,
        algorithm: str,
        program: Callable[[int], Program],
        *,
        weights: tuple[int, ...] | None = None,
        scratch: Callable[[int], tuple[Ref, ...]] = lambda rank: (),
        accumulators: Callable[[int], tuple[Ref, ...]] = lambda rank: (),
        payloads: Callable[[int], tuple[Ref, ...]] = lambda rank: (),
        even_blocks: bool = False,
        params: Mapping[str, int | str | tuple[int, ...]] | None = None,
    ) -> None:
        self.collective = collective
        self.algorithm = algorithm
        self.weights = weights if weights is not None else (1,) * collective.num_chunks
        self.even_blocks = even_blocks
        self.params = dict(params or {})
        self._program = program
        self._scratch = scratch
        self._accumulators = accumulators
        self._payloads = payloads
        self._programs: dict[int, Program] = {}

    @property
    def num_ranks(self) -> int:
        return self.collective.num_ranks

    def program(self, rank: int) -> Program:
        """The ops of ``rank``, expanded when first asked for."""
        found = self._programs.get(rank)
        if found is None:
            found = self._programs[rank] = tuple(self._program(rank))
        return found

    def scratch(self, rank: int) -> tuple[Ref, ...]:
        return self._scratch(rank)

    def accumulators(self, rank: int) -> tuple[Ref, ...]:
        return self._accumulators(rank)

    def payloads(self, rank: int) -> tuple[Ref, ...]:
        return self._payloads(rank)

    @cached_property
    def fingerprint(self) -> int:
        """64 bits that two ranks compare before they trust each other's segments."""
        description = msgspec.json.encode(
            [IR_VERSION, self.collective, self.algorithm, self.weights, sorted(self.params.items())]
        )
        return int.from_bytes(hashlib.blake2b(description, digest_size=8).digest(), "little")

    def __repr__(self) -> str:
        inner = "".join(f", {key}={value}" for key, value in sorted(self.params.items()))
        return f"<Schedule {self.collective.kind} of {self.num_ranks} ranks by {self.algorithm}{inner}>"


def chunk_bounds(num_elements: int, weights: tuple[int, ...]) -> list[int]:
    """Element offsets at which the DATA chunks begin, and the end: ``len(weights) + 1`` numbers.

    >>> chunk_bounds(10, (1, 1, 2))
    [0, 2, 5, 10]
    """
    total = sum(weights)
    bounds = [0]
    running = 0
    for weight in weights:
        running += weight
        bounds.append(num_elements * running // total)
    return bounds
