"""A Communicator is what a rank calls: every collective and message of one group, on NumPy arrays.

Every method checks its arguments, describes the call, and hands it to the group; it returns a ``Job`` at once. All
ranks of a group make its collective calls in one order.

Not here: torch (``process_group``), numbering, running and failing (``group``), and the algorithms (``collective``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thinwire.codec.base import Codec
from thinwire.collective.schedule import Buffer, CollectiveKind
from thinwire.collective.selection import Place
from thinwire.errors import ThinwireError, UsageError
from thinwire.forecast import LinkEstimate, Traffic, WireEstimate
from thinwire.runtime.coding import compile_codec
from thinwire.runtime.device_array import DeviceArray
from thinwire.runtime.group import Group
from thinwire.runtime.job import Job
from thinwire.runtime.memory import Array, Chunk
from thinwire.runtime.operation import CallOptions
from thinwire.runtime.plan import Call, Sizes
from thinwire.runtime.reduction import DTYPES, DType, ReduceOp, scale

DEFAULTS = CallOptions()


class Communicator:
    """One group on one rank. Thread-safe; made by ``Endpoint.communicator``.

    Arrays are 1-D, contiguous, of ``dtype.storage``; they must stay alive, and unchanged except by the job, until the
    job has ended. Wrong arguments raise ``UsageError`` at once; everything else is reported through the job.

    Args:
        group: runs the calls.
        algorithm: overrides the choice of algorithm for calls that do not name one.
    """

    def __init__(self, group: Group, algorithm: str | None = None) -> None:
        self.rank = group.rank
        self.num_ranks = group.num_ranks
        self._group = group
        self._algorithm = algorithm

    def links(self) -> dict[int, LinkEstimate]:
        """What the job's traffic has taught so far of the links to the other ranks, by rank.

        It costs nothing to ask: transports count anyway, and the endpoint looks often. A rank that nothing
        was exchanged with is not there; see ``LinkEstimate`` for what may be unknown of the others.
        """
        return self._group.estimates()

    def traffic(self) -> dict[int, Traffic]:
        """What the links to the other ranks have counted since they were made, by rank; for all groups together."""
        return self._group.traffic()

    def acknowledge(self) -> None:
        """Let the other ranks' kernels know now what has come from them, because this rank sends nothing for a while.

        A kernel waits up to 40 ms for something to send an acknowledgement along with, and for so long the sender's
        counts the link as busy: see ``unacknowledged_s`` of ``Traffic``.
        """
        self._group.acknowledge()

    def wire(self) -> WireEstimate:
        """What this process's traffic to and from all peers together has taught so far of the wire they share.

        Ask this for "is the network what the job waits for, and how fast is it": the figures of ``links`` are those of
        single links in the company they have.
        """
        return self._group.wire()

    def all_reduce(
        self,
        data: Chunk,
        op: ReduceOp,
        dtype: DType,
        *,
        average: bool = False,
        premultiply: float | None = None,
        options: CallOptions = DEFAULTS,
    ) -> Job:
        """Every rank's ``data`` becomes the reduction of all ranks' ``data``, the same bytes everywhere.

        With ``options.codec`` what travels is encoded: each contribution once, each sum once; on the device, if
        ``data`` lies there.
        """
        if premultiply is not None:
            assert not isinstance(data, DeviceArray), "multiplied on the host"
            scale(data, premultiply, dtype)
        return self._in_place(CollectiveKind.ALL_REDUCE, data, dtype, 0, options, op, average)

    def reduce(
        self,
        data: Array,
        root: int,
        op: ReduceOp,
        dtype: DType,
        *,
        average: bool = False,
        premultiply: float | None = None,
        options: CallOptions = DEFAULTS,
    ) -> Job:
        """``data`` at ``root`` becomes the reduction; elsewhere it is scratch and ends up undefined."""
        if premultiply is not None:
            scale(data, premultiply, dtype)
        return self._in_place(CollectiveKind.REDUCE, data, dtype, root, options, op, average)

    def broadcast(self, data: Array, root: int, dtype: DType, *, options: CallOptions = DEFAULTS) -> Job:
        """Every rank's ``data`` becomes that of ``root``."""
        return self._in_place(CollectiveKind.BROADCAST, data, dtype, root, options)

    def barrier(self, *, options: CallOptions = DEFAULTS) -> Job:
        """Ends once every rank has called it."""
        nothing = np.empty(0, np.uint8)
        return self._in_place(CollectiveKind.BARRIER, nothing, DTYPES["uint8"], 0, options)

    def all_gather(
        self, input: Array, outputs: Sequence[Array], dtype: DType, *, options: CallOptions = DEFAULTS
    ) -> Job:
        """``outputs[r]`` becomes rank r's ``input``, on every rank. Sizes may differ from rank to rank."""
        sizes = tuple(output.size for output in outputs)
        _check_blocks("all_gather", len(outputs), self.num_ranks)
        if sizes[self.rank] != input.size:
            raise UsageError(
                f"all_gather: {input.size} elements given, but its output has {sizes[self.rank]}"
            )
        return self._blocks(CollectiveKind.ALL_GATHER, [input], outputs, dtype, options, common=sizes)

    def reduce_scatter(
        self,
        inputs: Sequence[Array],
        output: Array,
        op: ReduceOp,
        dtype: DType,
        *,
        average: bool = False,
        premultiply: float | None = None,
        options: CallOptions = DEFAULTS,
    ) -> Job:
        """``output`` becomes the reduction of all ranks' ``inputs[rank]``. Sizes may differ from rank to rank."""
        sizes = tuple(block.size for block in inputs)
        _check_blocks("reduce_scatter", len(inputs), self.num_ranks)
        if sizes[self.rank] != output.size:
            raise UsageError(
                f"reduce_scatter: the output has {output.size} elements, but its block {sizes[self.rank]}"
            )
        if premultiply is not None:
            inputs = [block.copy() for block in inputs]
            for block in inputs:
                scale(block, premultiply, dtype)
        kind = CollectiveKind.REDUCE_SCATTER
        return self._blocks(kind, inputs, [output], dtype, options, common=sizes, op=op, average=average)

    def all_to_all(
        self,
        inputs: Sequence[Array],
        outputs: Sequence[Array],
        dtype: DType,
        *,
        even: bool = False,
        options: CallOptions = DEFAULTS,
    ) -> Job:
        """``outputs[s]`` becomes rank s's ``inputs[rank]``.

        ``even`` promises that all blocks of all ranks have one size, which every rank must promise alike.
        """
        _check_blocks("all_to_all", len(inputs), self.num_ranks)
        _check_blocks("all_to_all", len(outputs), self.num_ranks)
        common = (inputs[0].size,) * self.num_ranks if even else ()
        return self._blocks(CollectiveKind.ALL_TO_ALL, inputs, outputs, dtype, options, common=common)

    def gather(
        self,
        input: Array,
        outputs: Sequence[Array] | None,
        root: int,
        dtype: DType,
        *,
        options: CallOptions = DEFAULTS,
    ) -> Job:
        """At ``root``, ``outputs[r]`` becomes rank r's ``input``. All of one size; ``outputs`` is None elsewhere."""
        common = (input.size,)
        return self._blocks(
            CollectiveKind.GATHER,
            [input],
            self._at_root("gather", outputs, root),
            dtype,
            options,
            common,
            root,
        )

    def scatter(
        self,
        inputs: Sequence[Array] | None,
        output: Array,
        root: int,
        dtype: DType,
        *,
        options: CallOptions = DEFAULTS,
    ) -> Job:
        """``output`` becomes the root's ``inputs[rank]``. All of one size; ``inputs`` is None elsewhere."""
        common = (output.size,)
        return self._blocks(
            CollectiveKind.SCATTER,
            self._at_root("scatter", inputs, root),
            [output],
            dtype,
            options,
            common,
            root,
        )

    def send(self, data: Array, to: int, tag: int, dtype: DType, *, options: CallOptions = DEFAULTS) -> Job:
        """Send ``data`` to rank ``to``. Small ones end once they are on the way, large ones once they are taken."""
        self._check_peer("send to", to)
        return self._group.send(data, to, tag, dtype, options)

    def recv(
        self, data: Array, source: int | None, tag: int, dtype: DType, *, options: CallOptions = DEFAULTS
    ) -> Job:
        """Receive into ``data`` from rank ``source``, or with None from any; ``job.source`` then says from whom."""
        if source is not None:
            self._check_peer("recv from", source)
        return self._group.recv(data, source, tag, dtype, options)

    @property
    def place(self) -> Place:
        """Where the ranks of the group are."""
        return self._group.place

    @property
    def error(self) -> ThinwireError | None:
        """Why the group has failed, and will fail every call; None while it has not."""
        return self._group.error

    def abort(self, reason: str) -> None:
        """Fail every pending and later operation of the group, here and on every rank."""
        self._group.abort(reason)

    def close(self) -> None:
        """Leave the group in good order. Pending operations end with AbortedError."""
        self._group.close()

    def _in_place(
        self,
        kind: CollectiveKind,
        data: Chunk,
        dtype: DType,
        root: int,
        options: CallOptions,
        op: ReduceOp | None = None,
        average: bool = False,
    ) -> Job:
        self._check_root(kind, root)
        call = Call(
            kind=kind,
            rank=self.rank,
            num_ranks=self.num_ranks,
            dtype=dtype,
            sizes=((Buffer.DATA, (data.size,)),),
            common_sizes=(data.size,),
            tiled_bytes=data.nbytes,
            root=root,
            op=op,
            average=average,
            place=self._group.place,
            algorithm=options.algorithm or self._algorithm,
            shape=options.shape,
            codec=_codec_for(kind, dtype, op, options),
        )
        return self._group.submit(call, {Buffer.DATA: [data]}, options)

    def _blocks(
        self,
        kind: CollectiveKind,
        inputs: Sequence[Array],
        outputs: Sequence[Array],
        dtype: DType,
        options: CallOptions,
        common: tuple[int, ...],
        root: int = 0,
        op: ReduceOp | None = None,
        average: bool = False,
    ) -> Job:
        self._check_root(kind, root)
        sizes: Sizes = (
            (Buffer.INPUT, tuple(block.size for block in inputs)),
            (Buffer.OUTPUT, tuple(block.size for block in outputs)),
        )
        total = sum(common) if len(common) == self.num_ranks else sum(common) * self.num_ranks
        call = Call(
            kind=kind,
            rank=self.rank,
            num_ranks=self.num_ranks,
            dtype=dtype,
            sizes=sizes,
            common_sizes=common,
            tiled_bytes=total * dtype.itemsize,
            root=root,
            op=op,
            average=average,
            place=self._group.place,
            algorithm=options.algorithm or self._algorithm,
            shape=options.shape,
            codec=_codec_for(kind, dtype, op, options),
        )
        return self._group.submit(call, {Buffer.INPUT: inputs, Buffer.OUTPUT: outputs}, options)

    def _check_root(self, kind: CollectiveKind, root: int) -> None:
        if not 0 <= root < self.num_ranks:
            raise UsageError(f"{kind}: root {root} is not a rank of this group of {self.num_ranks}")

    def _check_peer(self, what: str, rank: int) -> None:
        if not 0 <= rank < self.num_ranks or rank == self.rank:
            raise UsageError(
                f"{what} rank {rank}: use another rank of this group of {self.num_ranks} (this one is {self.rank})"
            )

    def _at_root(self, what: str, blocks: Sequence[Array] | None, root: int) -> Sequence[Array]:
        if self.rank != root:
            return ()
        _check_blocks(what, len(blocks or ()), self.num_ranks)
        return blocks or ()


def _codec_for(kind: CollectiveKind, dtype: DType, op: ReduceOp | None, options: CallOptions) -> Codec | None:
    """The codec of a call, once it is clear that it can encode what the call moves, and can be run at once.

    Raises:
        UsageError: it cannot.
    """
    if options.codec is None:
        return None
    if dtype.storage.kind != "f" and not dtype.is_half:
        raise UsageError(
            f"{kind}: codecs encode real floating-point numbers, not {dtype.name}: call it exactly"
        )
    if op not in (None, ReduceOp.SUM):
        raise UsageError(
            f"{kind}: what is encoded can be summed or averaged, not reduced by {op}: call it exactly"
        )
    compile_codec(options.codec)
    return options.codec


def _check_blocks(what: str, found: int, expected: int) -> None:
    if found != expected:
        raise UsageError(f"{what}: {found} blocks given, one for each of the {expected} ranks expected")
