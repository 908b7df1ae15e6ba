"""A Group is the running side of a communicator: calls become numbered operations, operations run tile by tile, and
errors reach everybody who shares them.

The number of a call in the group's order names it on the wire. A group that has failed stays failed: every pending
and later operation gets the error, on every rank.

Not here: the public calls (``communicator``), what a tile does (``flight``), and the wire (``endpoint``).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from thinwire.collective.schedule import Buffer
from thinwire.collective.selection import place_of
from thinwire.errors import (
    AbortedError,
    CodecError,
    CollectiveTimeoutError,
    MismatchError,
    PeerError,
    ThinwireError,
)
from thinwire.forecast import LinkEstimate, Traffic, WireEstimate
from thinwire.runtime.coding import Coding
from thinwire.runtime.device_array import DeviceArray
from thinwire.runtime.failure import MISMATCH_GRACE_S, FailReport, Mismatch
from thinwire.runtime.flight import Flight, Wires
from thinwire.runtime.inbox import eager_cost
from thinwire.runtime.job import Job
from thinwire.runtime.memory import Array, Chunk
from thinwire.runtime.operation import CallOptions, Operation
from thinwire.runtime.plan import Call, Plan, plan_for
from thinwire.runtime.reduction import DType
from thinwire.runtime.runs import Pace
from thinwire.runtime.streams import Pair, Receive, pair_call, stream_id
from thinwire.transport.base import Contact, Link

if TYPE_CHECKING:
    from thinwire.runtime.endpoint import Endpoint

# Finished calls that can still be named when another rank finds that they do not fit.
NUM_CALLS_REMEMBERED = 64


class Group:
    """One group on one rank. Thread-safe. Also the ``Wires`` of its collectives' flights.

    Args:
        endpoint: this process on the network.
        rank: ours; ``contacts[rank]`` is this endpoint.
        contacts: how to reach each rank.
        group: 64-bit id, equal on all ranks and unique to this group.
        timeout_s: time limit of operations that do not have their own.
    """

    def __init__(
        self, endpoint: Endpoint, rank: int, contacts: Sequence[Contact], group: int, timeout_s: float
    ) -> None:
        self.rank = rank
        self.num_ranks = len(contacts)
        self.group = group
        self.track = f"group {group:016x}"  # of the trace
        self.timeout_s = timeout_s
        self.place = place_of([contact.host_key for contact in contacts], os.cpu_count() or 1)
        self._endpoint = endpoint
        self._contacts = tuple(contacts)
        self._rank_of = {contact.endpoint: index for index, contact in enumerate(contacts)}
        self._links: dict[int, Link] = {}
        self._lock = threading.RLock()
        self._next_number: dict[int, int] = {}  # group or stream id -> number of its next operation
        self._operations: dict[tuple[int, int], Operation] = {}  # in the order of the calls
        self._streams: dict[int, tuple[int, int]] = {}  # stream id -> (source rank, tag), of receives
        self._any_receives: list[Receive] = []
        self._recent_calls: dict[tuple[int, int], Plan] = {}
        self._mismatch: Mismatch | None = None
        self._left: dict[int, str] = {}  # rank -> why it is no longer there
        self._error: ThinwireError | None = None

    # Submitting -----------------------------------------------------------------------------------------------

    def submit(self, call: Call, chunks: Mapping[Buffer, Sequence[Chunk]], options: CallOptions) -> Job:
        """Run a collective. Raises UsageError if there is no way to do what the call asks for."""
        plan = plan_for(call)
        return self._start(plan, chunks, self, self.group, Job(plan.description), options)

    def send(self, data: Array, to: int, tag: int, dtype: DType, options: CallOptions) -> Job:
        plan = plan_for(pair_call(0, data, dtype, self.place, options))
        stream = stream_id(self.group, self.rank, to, tag)
        job = Job(f"send to rank {to}")
        return self._start(plan, {Buffer.DATA: [data]}, Pair(self, self.rank, to), stream, job, options)

    def recv(self, data: Array, source: int | None, tag: int, dtype: DType, options: CallOptions) -> Job:
        """``source`` None: whoever sends first. ``job.source`` says who it was."""
        if source is not None:
            receive = Receive(data, tag, dtype, options, Job(f"recv from rank {source}"))
            with self._lock:
                self._enlist_receive(receive, source)
            self._go()
            return receive.job
        receive = Receive(data, tag, dtype, options, Job("recv from any rank"))
        receive.deadline_s = self._endpoint.clock.now_s() + self._limit_s(options)
        others = [rank for rank in range(self.num_ranks) if rank != self.rank]
        with self._lock:
            self._any_receives.append(receive)
            streams = [self._watch(rank, tag) for rank in others]
        if self._error is not None:
            self._fail_pending()
        for stream in streams:
            self.on_announced(stream)
        self._endpoint.wake_at(receive.deadline_s)
        return receive.job

    def _enlist_receive(self, receive: Receive, source: int) -> None:
        """Bind a receive to the next message of its source. The lock is held."""
        call = pair_call(1, receive.data, receive.dtype, self.place, receive.options)
        receive.job.source = source
        stream = self._watch(source, receive.tag)
        pair = Pair(self, source, self.rank)
        chunks = {Buffer.DATA: [receive.data]}
        self._enlist(plan_for(call), chunks, pair, stream, receive.job, receive.options)

    def on_announced(self, stream: int) -> None:
        """Something may have come on a stream: give it to the oldest receive from any source that fits."""
        with self._lock:
            source, tag = self._streams[stream]
            receive = next((item for item in self._any_receives if item.tag == tag), None)
            if receive is None or not self._endpoint.has_arrived(stream, self._next_number.get(stream, 0)):
                return
            self._any_receives.remove(receive)
            self._enlist_receive(receive, source)
        self._go()

    def _watch(self, source: int, tag: int) -> int:
        """Listen to the stream of a source and tag; returns its id. The lock is held."""
        stream = stream_id(self.group, source, self.rank, tag)
        if stream not in self._streams:
            self._streams[stream] = (source, tag)
            self._endpoint.watch_stream(stream, self)
        return stream

    def _start(
        self,
        plan: Plan,
        chunks: Mapping[Buffer, Sequence[Chunk]],
        wires: Wires,
        group: int,
        job: Job,
        options: CallOptions,
    ) -> Job:
        with self._lock:
            self._enlist(plan, chunks, wires, group, job, options)
        self._go()
        return job

    def _enlist(
        self,
        plan: Plan,
        chunks: Mapping[Buffer, Sequence[Chunk]],
        wires: Wires,
        group: int,
        job: Job,
        options: CallOptions,
    ) -> None:
        """Give the call its number. The lock is held, so that numbers follow the order of the calls."""
        data = chunks[Buffer.DATA][0] if Buffer.DATA in chunks else None
        if data is not None:
            chunks = {Buffer.DATA: plan.split(data)}
        number = self._next_number.get(group, 0)
        coding = None
        if plan.call.codec is not None:
            on_device = data if isinstance(data, DeviceArray) else None
            memory, codec = options.memory, plan.call.codec
            coding = Coding(codec, memory, plan.num_elements, self.rank, number, on_device)
        self._next_number[group] = number + 1
        self._remember(group, number, plan)
        operation = self._operations[group, number] = Operation(
            plan,
            chunks,
            wires,
            group=group,
            number=number,
            job=job,
            coding=coding,
            started_s=self._endpoint.clock.now_s(),
            timeout_s=self._limit_s(options),
            priority=options.priority,
        )
        self._endpoint.wake_at(operation.next_look_s())

    def _go(self) -> None:
        """After enlisting: start what may start, unless the group has failed or is about to."""
        if self._error is not None:
            self._fail_pending()
            return
        if self._mismatch is not None:
            self.on_mismatch(self._mismatch.group, self._mismatch.number)
        self._pump()

    def _pump(self) -> None:
        """Start the tiles that may start: oldest operation first, as far as the staging budget goes.

        The oldest collective may always have one tile in flight. It is the same on all ranks, so its tile finds its
        peers, and no set of budgets can block the group for ever. (Messages between two ranks stage nothing.)
        """
        while True:
            with self._lock:
                chosen = self._choose_tile()
            if chosen is None:
                return
            operation, flight = chosen
            self._endpoint.launch(flight)
            if self._error is not None:  # it failed meanwhile, and did not know this flight yet
                flight.stop()
                self._endpoint.retire(flight.key, 0)
                return
            for rank in self._ranks_that_left(operation):
                self._fail_without(rank)

    def _choose_tile(self) -> tuple[Operation, Flight] | None:
        oldest: Operation | None = None
        for operation in self._operations.values():
            if oldest is None and operation.group == self.group:
                oldest = operation
            if not operation.may_start_tile():
                continue
            tile = operation.num_started
            need = operation.plan.tile(tile).staging_bytes
            must = operation is oldest and not operation.flights
            if not self._endpoint.staging.take(need, force=must):
                return None
            operation.num_started += 1
            key = (operation.group, operation.number, tile)
            flight = operation.flights[tile] = Flight(
                key,
                operation.plan.signature,
                operation.plan.tile(tile).lowered,
                operation.plan.memory(tile, operation.chunks, self._endpoint.pool, operation.coding),
                operation.wires,
                self._endpoint.pool,
                encode=self._endpoint.encode,
                priority=operation.priority,
                announce=operation.group != self.group,
                on_done=partial(self._on_tile_done, operation, need),
            )
            return operation, flight
        return None

    def _on_tile_done(self, operation: Operation, staging_bytes: int, flight: Flight) -> None:
        tile = flight.key[2]
        operation.finish_tile(tile)
        flight.release()
        with self._lock:
            if operation.flights.pop(tile, None) is None or self._error is not None:
                return
            operation.num_done += 1
            operation.wire_bytes_sent += flight.wire_bytes_sent
            ended = operation.num_done == operation.plan.num_tiles
            if ended:
                del self._operations[operation.group, operation.number]
            more = bool(self._operations)
        self._endpoint.retire(flight.key, staging_bytes)
        if ended:
            self._finish(operation, None)
        if more:
            self._pump()

    def _finish(self, operation: Operation, error: ThinwireError | None) -> None:
        self._endpoint.record(operation, self, error)
        if operation.coding is not None:
            operation.coding.end()
        operation.job.finish(error)

    # Failure --------------------------------------------------------------------------------------------------

    @property
    def error(self) -> ThinwireError | None:
        """Why the group has failed; None while it has not."""
        return self._error

    def abort(self, reason: str) -> None:
        """Fail every pending and later operation of the group, here and on every rank."""
        self._tell_all(reason)
        self.fail(AbortedError(f"the group was aborted: {reason}"))

    def close(self) -> None:
        """Leave the group in good order. Pending operations end with AbortedError."""
        self.fail(AbortedError("the group was destroyed while the operation ran, or before it began"))
        self._endpoint.forget([self.group, *self._streams])

    def fail(self, error: ThinwireError) -> None:
        """End everything with ``error``; only the first counts."""
        with self._lock:
            if self._error is not None:
                return
            self._error = error
        self._fail_pending()

    def _fail_pending(self) -> None:
        with self._lock:
            operations = list(self._operations.values())
            self._operations.clear()
            receives, self._any_receives = self._any_receives, []
        for operation in operations:
            for tile, flight in list(operation.flights.items()):
                flight.stop()
                self._endpoint.retire(flight.key, operation.plan.tile(tile).staging_bytes)
            self._finish(operation, self._error)
        for receive in receives:
            receive.job.finish(self._error)

    def on_peer_lost(self, peer: str, reason: str) -> None:
        rank = self._rank_of[peer]
        self.fail(PeerError(rank, self._host(rank), reason))

    def on_peer_left(self, peer: str, reason: str) -> None:
        """The peer has closed its endpoint in good order: only operations that still need it fail."""
        rank = self._rank_of[peer]
        with self._lock:
            self._left[rank] = reason
            stuck = any(rank in self._ranks_that_left(operation) for operation in self._operations.values())
        if stuck:
            self._fail_without(rank)

    def _fail_without(self, rank: int) -> None:
        """A rank that has left is still needed: nobody can go on, and those who had no link to it must be told."""
        reason = self._left[rank]
        self.fail(PeerError(rank, self._host(rank), reason))
        self._endpoint.tell_lost(self._contacts[rank].endpoint, reason, [self])

    def on_mismatch(self, group: int, number: int) -> None:
        """An operation of the group, or of one of its streams, does not fit what another rank called.

        Tell everybody what this rank called, once, so that the error can name both sides on every rank.
        """
        with self._lock:
            if self._mismatch is None:
                deadline_s = self._endpoint.clock.now_s() + MISMATCH_GRACE_S
                self._mismatch = Mismatch(group, number, deadline_s)
                self._endpoint.wake_at(deadline_s)
            plan = self._recent_calls.get((self._mismatch.group, self._mismatch.number))
            mine = f"{plan.description} by {plan.schedule.algorithm}" if plan else ""
            tell = bool(mine) and self._mismatch.add(self.rank, self._host(self.rank), mine)
        if tell:
            self._tell_all("the ranks disagree", call=mine)
        self._settle_mismatch()

    def on_fail_report(self, report: FailReport) -> None:
        if 0 <= report.blamed < self.num_ranks:
            self.fail(PeerError(report.blamed, self._host(report.blamed), report.reason))
            return
        if not report.call:
            self.fail(AbortedError(f"rank {report.rank} on {report.host} gave up: {report.reason}"))
            return
        self.on_mismatch(report.group, report.number)
        with self._lock:
            if self._mismatch is not None:
                self._mismatch.add(report.rank, report.host, report.call)
        self._settle_mismatch()

    def poll(self, now_s: float) -> float:
        """Fail what has timed out, ask about what takes long; returns when to look again (the endpoint's clock)."""
        self._settle_mismatch()
        with self._lock:
            if self._error is not None:
                return float("inf")
            operations = list(self._operations.values())
            receives = list(self._any_receives)
            grace_s = self._mismatch.deadline_s if self._mismatch is not None else float("inf")
        due: list[Operation | Receive] = [*operations, *receives]
        late = [item for item in due if item.deadline_s <= now_s]
        if late:
            self._time_out(late[0])
            return float("inf")
        for operation in operations:
            if operation.question_s <= now_s:
                operation.ask(now_s)
        return min(
            [
                grace_s,
                *(operation.next_look_s() for operation in operations),
                *(receive.deadline_s for receive in receives),
            ]
        )

    # Wires: what flights ask of us, in ranks of the group -------------------------------------------------------

    def link(self, rank: int) -> Link:
        found = self._links.get(rank)
        if found is None:
            found = self._links[rank] = self._endpoint.link(self._contacts[rank])
        return found

    def pace(self, rank: int) -> Pace:
        return self._endpoint.pace(self._contacts[rank].endpoint)

    def take_allowance(self, rank: int, num_bytes: int, num_frames: int) -> bool:
        return self._endpoint.allowances.take(
            self._contacts[rank].endpoint, eager_cost(num_bytes, num_frames)
        )

    def return_allowance(self, rank: int, num_bytes: int) -> None:
        self._endpoint.allowances.restore(self._contacts[rank].endpoint, num_bytes)

    def on_coding_failed(self, rank: int | None, error: Exception) -> None:
        """What ``rank`` sent cannot be decoded; or, without a rank, our own codec failed. All ranks are told whose."""
        if self._error is not None:
            return
        what = f"{type(error).__name__}: {error}"
        if rank is None:
            self._tell_all(f"its codec failed: {what}", blamed=self.rank)
            self.fail(CodecError(f"the codec failed on this rank: {what}"))
        else:
            reason = f"sent what cannot be decoded: {what}"
            self._tell_all(reason, blamed=rank)
            self.fail(PeerError(rank, self._host(rank), reason))

    def on_send_failed(self, rank: int, error: BaseException) -> None:
        self.fail(PeerError(rank, self._host(rank), self._left.get(rank) or str(error)))

    def group_rank(self, rank: int) -> int:
        return rank

    def schedule_rank(self, peer: str) -> int:
        return self._rank_of[peer]

    # Helpers --------------------------------------------------------------------------------------------------

    def signature_of_finished(self, group: int, number: int) -> int | None:
        """What the operation was, if it has ended here and is remembered; None if it runs or is still to come."""
        with self._lock:
            is_pending = (group, number) in self._operations or number >= self._next_number.get(group, 0)
            if is_pending or self._error is not None or (group, number) not in self._recent_calls:
                return None
            return self._recent_calls[group, number].signature

    def estimates(self) -> dict[int, LinkEstimate]:
        """What is known of the links to the other ranks."""
        found = self._endpoint.links()
        return {rank: found[peer] for peer, rank in self._rank_of.items() if peer in found}

    def traffic(self) -> dict[int, Traffic]:
        """What the links to the other ranks have counted."""
        found = self._endpoint.traffic()
        return {rank: found[peer] for peer, rank in self._rank_of.items() if peer in found}

    def acknowledge(self) -> None:
        """Let the other ranks' kernels know now what has come from them."""
        self._endpoint.acknowledge()

    def wire(self) -> WireEstimate:
        """What is known of this process's wire."""
        return self._endpoint.wire()

    def peers(self) -> Iterable[str]:
        return self._rank_of

    def _remember(self, group: int, number: int, plan: Plan) -> None:
        self._recent_calls[group, number] = plan
        if len(self._recent_calls) > NUM_CALLS_REMEMBERED:
            del self._recent_calls[next(iter(self._recent_calls))]

    def _host(self, rank: int) -> str:
        return self._contacts[rank].host

    def _limit_s(self, options: CallOptions) -> float:
        return self.timeout_s if options.timeout_s is None else options.timeout_s

    def _tell_all(self, reason: str, call: str = "", blamed: int = -1) -> None:
        group, number = (self._mismatch.group, self._mismatch.number) if self._mismatch and call else (0, 0)
        report = FailReport(
            group=group,
            number=number,
            rank=self.rank,
            host=self._host(self.rank),
            reason=reason,
            call=call,
            blamed=blamed,
        )
        for rank in range(self.num_ranks):
            if rank != self.rank and rank not in self._left:
                self._endpoint.send_fail_report(self.link(rank), self.group, report)

    def _ranks_that_left(self, operation: Operation) -> list[int]:
        """Ranks that have left though the operation still waits for them."""
        if not self._left:
            return []
        return [
            rank
            for rank in map(operation.wires.group_rank, operation.ranks_waited_for())
            if rank in self._left
        ]

    def _settle_mismatch(self) -> None:
        with self._lock:
            mismatch = self._mismatch
        if mismatch is not None and mismatch.is_settled(self._endpoint.clock.now_s()):
            self.fail(MismatchError(mismatch.sentence()))

    def _time_out(self, late: Operation | Receive) -> None:
        if isinstance(late, Operation):
            ranks = [late.wires.group_rank(rank) for rank in late.ranks_waited_for()]
            waiting = ", ".join(f"rank {rank} ({self._host(rank)})" for rank in ranks)
            what = f"{late.job.description} timed out after {late.timeout_s:g} s"
            text = f"{what}, waiting for {waiting or 'its own tiles'}: check that every rank makes this call"
        else:
            text = f"{late.job.description} timed out: nobody sent anything with tag {late.tag}"
        self._tell_all(text)
        self.fail(CollectiveTimeoutError(text))
