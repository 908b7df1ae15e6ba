"""Writes programs: every generator says what is sent and added, and the builder works out what waits for what.

Dependencies follow from the chunks an op touches. A reader waits for the last writer of its chunk; a writer waits
for everybody who read the chunk since, or for the last writer if nobody did. Ops that share no chunk stay
independent, so a RECV never waits for a SEND it has nothing to do with. Additions into one chunk write it, one after
the other, so they happen in the order of the list: the reduction order is fixed and results are deterministic.

Dependencies are minimal: one that follows from the others is left out.

Not here: proof. ``check.prove`` knows nothing of the builder and believes none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache

from thinwire.collective.schedule import Buffer, Collective, Op, OpKind, Program, Ref, Schedule


class ProgramBuilder:
    """The program of one rank, written op by op. Every method that adds an op returns its index.

    Args:
        rank: whose program it is.

    Attributes:
        phase: the phase of the ops added next; a generator with several phases counts it up.

    >>> from thinwire.collective.schedule import data
    >>> ops = ProgramBuilder(rank=0)
    >>> ops.send(1, data(0))
    0
    >>> ops.recv_reduce(2, data(1))
    1
    >>> ops.recv(1, data(0))
    2
    >>> ops.program()[2].deps
    (0,)
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.phase = 0
        self._ops: list[Op] = []
        self._ancestors: list[int] = []  # for each op the bit set of those before it
        self._last_write: dict[Ref, int] = {}
        self._reads_since: dict[Ref, list[int]] = {}
        self._scratch: list[Ref] = []
        self._accumulators: list[Ref] = []
        self._payloads: list[Ref] = []

    def send(self, peer: int, *source: Ref, after: Iterable[int] = ()) -> int:
        """Send chunks as one message. ``after`` adds ops to wait for that no chunk tells of (pacing, barriers)."""
        return self._add(OpKind.SEND, peer=peer, source=source, after=after)

    def recv(self, peer: int, *target: Ref, after: Iterable[int] = ()) -> int:
        """Store one message."""
        return self._add(OpKind.RECV, peer=peer, target=target, after=after)

    def recv_reduce(self, peer: int, *target: Ref) -> int:
        """Add one message to what the chunks hold."""
        return self._add(OpKind.RECV, peer=peer, target=target, reduce=True)

    def copy(self, source: Ref, target: Ref) -> int:
        """target = source"""
        return self._add(OpKind.COPY, source=(source,), target=(target,))

    def reduce(self, source: Ref, target: Ref) -> int:
        """target = target + source"""
        return self._add(OpKind.REDUCE, source=(source,), target=(target,))

    def encode(self, source: Ref) -> Ref:
        """A fresh payload = the encoded source."""
        payload = self.payload(like=source)
        self._add(OpKind.ENCODE, source=(source,), target=(payload,))
        return payload

    def decode(self, payload: Ref, target: Ref) -> int:
        """target = what the payload stands for"""
        return self._add(OpKind.DECODE, source=(payload,), target=(target,))

    def decode_reduce(self, payload: Ref, target: Ref) -> int:
        """target = target + what the payload stands for"""
        return self._add(OpKind.DECODE, source=(payload,), target=(target,), reduce=True)

    def recv_payload(self, peer: int, like: Ref) -> Ref:
        """A fresh payload that ``peer`` sends, of a chunk with the size of ``like``."""
        payload = self.payload(like)
        self.recv(peer, payload)
        return payload

    def payload(self, like: Ref) -> Ref:
        """A fresh PAYLOAD chunk for the encoded form of a chunk with the size of ``like``."""
        self._payloads.append(like)
        return Ref(Buffer.PAYLOAD, len(self._payloads) - 1)

    def scratch(self, like: Ref) -> Ref:
        """A fresh SCRATCH chunk with the size of ``like``."""
        self._scratch.append(like)
        return Ref(Buffer.SCRATCH, len(self._scratch) - 1)

    def accumulator(self, like: Ref) -> Ref:
        """A fresh ACCUMULATOR chunk with the size of ``like``."""
        self._accumulators.append(like)
        return Ref(Buffer.ACCUMULATOR, len(self._accumulators) - 1)

    def program(self) -> Program:
        """What was written so far."""
        return tuple(self._ops)

    def scratch_sizes(self) -> tuple[Ref, ...]:
        """For each SCRATCH chunk the ref whose size it has."""
        return tuple(self._scratch)

    def accumulator_sizes(self) -> tuple[Ref, ...]:
        """For each ACCUMULATOR chunk the ref whose size it has."""
        return tuple(self._accumulators)

    def payload_sizes(self) -> tuple[Ref, ...]:
        """For each PAYLOAD chunk the ref whose encoded form it holds."""
        return tuple(self._payloads)

    def _add(
        self,
        kind: OpKind,
        *,
        peer: int = -1,
        source: tuple[Ref, ...] = (),
        target: tuple[Ref, ...] = (),
        reduce: bool = False,
        after: Iterable[int] = (),
    ) -> int:
        index = len(self._ops)
        hazards = set()
        for ref in source:
            if ref in self._last_write:
                hazards.add(self._last_write[ref])
            self._reads_since.setdefault(ref, []).append(index)
        for ref in target:
            readers = self._reads_since.pop(ref, None)
            if readers is not None:
                hazards.update(readers)
            elif ref in self._last_write:
                hazards.add(self._last_write[ref])
            self._last_write[ref] = index
        deps = set(after)
        before = 0
        for dep in deps:
            before |= self._ancestors[dep] | 1 << dep
        for hazard in sorted(hazards, reverse=True):
            if not before >> hazard & 1:
                deps.add(hazard)
                before |= self._ancestors[hazard] | 1 << hazard
        self._ancestors.append(before)
        self._ops.append(
            Op(
                kind=kind,
                peer=peer,
                source=source,
                target=target,
                reduce=reduce,
                deps=tuple(sorted(deps)),
                phase=self.phase,
            )
        )
        return index


def write_schedule(
    collective: Collective,
    algorithm: str,
    body: Callable[[ProgramBuilder], None],
    *,
    weights: tuple[int, ...] | None = None,
    even_blocks: bool = False,
    params: Mapping[str, int | str | tuple[int, ...]] | None = None,
) -> Schedule:
    """The schedule whose program on each rank is what ``body`` writes, when that rank is first asked for.

    Args:
        body: writes the program of ``ops.rank``.
        weights, even_blocks, params: as for ``Schedule``.

    >>> from thinwire.collective.schedule import CollectiveKind, data
    >>> def body(ops: ProgramBuilder) -> None:
    ...     if ops.rank == 0:
    ...         ops.send(1, data(0))
    ...     else:
    ...         ops.recv(0, data(0))
    >>> two = Collective(kind=CollectiveKind.BROADCAST, num_ranks=2, num_chunks=1)
    >>> [op.kind.value for op in write_schedule(two, "example", body).program(1)]
    ['recv']
    """

    @cache
    def written(rank: int) -> ProgramBuilder:
        ops = ProgramBuilder(rank)
        body(ops)
        return ops

    return Schedule(
        collective,
        algorithm,
        lambda rank: written(rank).program(),
        weights=weights,
        scratch=lambda rank: written(rank).scratch_sizes(),
        accumulators=lambda rank: written(rank).accumulator_sizes(),
        payloads=lambda rank: written(rank).payload_sizes(),
        even_blocks=even_blocks,
        params=params,
    )
