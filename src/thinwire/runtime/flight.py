"""A Flight runs one lowered program once: it is told what arrived and what was sent, and sends what became ready.

It owns no thread. Whoever brings news (a transport's reader, a writer that finished, the caller that starts it) runs
what the news made ready, with no lock held while bytes are moved or reduced. A segment that arrives before its
dependencies are met is staged and applied by whoever meets the last of them. Only what is to be encoded from the
start on goes to the encoder's thread (``encoder``).

Consecutive segments that are ready at one moment share a frame as far as the link is fast (``runs``).

Large transfers wait for the receiver's GRANT, so that they land straight in the user's memory; small ones leave at
once, out of an allowance that the receiver renews (``inbox``). Data from the receiver says as much as its GRANT; where
the schedule lets a rank send only in answer to such data, no GRANT is sent to it. (Both cannot wait for each other: the
checker has proved that one of the two has something to send first.)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import Protocol

from thinwire.collective.schedule import OpKind
from thinwire.errors import CodecError, ProtocolError
from thinwire.protocol.frame import HEADER_BYTES, Header, Kind
from thinwire.runtime.encoder import Submit
from thinwire.runtime.lowering import Lowered, PayloadSegment, Piece, Segment
from thinwire.runtime.memory import BufferPool, Memory
from thinwire.runtime.runs import Landed, Pace, frame_bytes, joined
from thinwire.transport.base import Link

EAGER_BYTES = 64 << 10  # up to this many bytes to one peer are sent without waiting for its GRANT
FLAG_EAGER = 1  # on DATA: these bytes were taken from the sender's allowance

Key = tuple[int, int, int]  # group, operation, tile


class LengthMismatch(Exception):
    """A segment of another length than this rank expects: the ranks disagree about the call."""


class Wires(Protocol):
    """The other ranks of a schedule, as a flight needs them."""

    def link(self, rank: int) -> Link: ...
    def pace(self, rank: int) -> Pace: ...
    def take_allowance(self, rank: int, num_bytes: int, num_frames: int) -> bool: ...
    def return_allowance(self, rank: int, num_bytes: int) -> None: ...
    def on_coding_failed(self, rank: int | None, error: Exception) -> None: ...
    def on_send_failed(self, rank: int, error: BaseException) -> None: ...
    def on_mismatch(self, group: int, number: int) -> None: ...
    def schedule_rank(self, peer: str) -> int: ...
    def group_rank(self, rank: int) -> int: ...


class _Payload:
    """A segment of a payload while somebody still has to read it. ``source`` sent it; None: it was encoded here."""

    __slots__ = ("content", "num_readers", "source")

    def __init__(self, content: memoryview, num_readers: int, source: int | None) -> None:
        self.content = content
        self.num_readers = num_readers
        self.source = source


class Flight:
    """One tile of one operation on this rank. Thread-safe.

    Args:
        key: group, operation, tile.
        signature: 64 bits that describe the call; goes into every frame.
        lowered: what to do.
        memory: the arrays to do it on, and the arithmetic.
        wires: the way to the other ranks.
        encode: has done what is to be encoded from the start on.
        announce: tell receivers even of large messages, so that a receive from any source can find them.
        on_done: called once when everything has completed.
    """

    def __init__(
        self,
        key: Key,
        signature: int,
        lowered: Lowered,
        memory: Memory,
        wires: Wires,
        pool: BufferPool,
        *,
        encode: Submit,
        priority: int,
        announce: bool,
        on_done: Callable[[Flight], None],
    ) -> None:
        self.key = key
        self.signature = signature
        self.lowered = lowered
        self._memory = memory
        self.wires = wires
        self._pool = pool
        self._encode_later = encode
        self._priority = priority
        self._announce = announce
        self._on_done = on_done
        self._lock = threading.Lock()
        self._waiting_for = list(lowered.num_deps)
        self._num_left = len(lowered.segments)
        self._arrived = bytearray(len(lowered.segments))
        self._direct: set[int] = set()
        self._staged: dict[int, Landed] = {}
        self._frames_sent = 0
        self._cleared: dict[int, int] = {}  # ranks that we may send to -> flags for the frames
        self._held: dict[int, list[int]] = {}
        self._payloads: dict[PayloadSegment, _Payload] = {}
        self._encoded_bytes_sent = 0
        self._stopped = False
        self._launched = False

    # Inputs ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Grant, ask or announce, and run what needs nothing else."""
        for rank in self.lowered.peers:
            self.wires.link(rank)  # even if there is nothing to say yet: only over a link is its end noticed
        for rank, num_bytes in self.lowered.bytes_from.items():
            if num_bytes > EAGER_BYTES and rank not in self.lowered.answering:
                self._send_control(Kind.GRANT, rank)
        ready = list(self.lowered.first)
        for rank, num_bytes in self.lowered.bytes_to.items():
            if num_bytes <= EAGER_BYTES and self.wires.take_allowance(
                rank, num_bytes, self.lowered.frames_to[rank]
            ):
                ready += self._clear(rank, FLAG_EAGER)
            elif num_bytes <= EAGER_BYTES or self._announce:
                self._send_control(Kind.ANNOUNCE, rank)
        if not self.lowered.segments:
            self._on_done(self)
        if self.lowered.readers:
            ready = self._submit_encodes(ready)
        self._run(ready[::-1])

    def launched(self) -> None:
        """It was started, and given everything that had come before: from now on it knows what it waits for."""
        self._launched = True

    def handle_grant(self, rank: int) -> None:
        """``rank`` is ready for everything that we have for it."""
        self._run(self._clear(rank, 0)[::-1])

    def handle_announce(self, rank: int) -> None:
        """``rank`` lacks allowance for something small: let it send. Large transfers were granted at the start."""
        if self.lowered.bytes_from.get(rank, 0) <= EAGER_BYTES:
            self._send_control(Kind.GRANT, rank)

    def views_for(self, rank: int, header: Header) -> Sequence[memoryview]:
        """Where to put the payload of a DATA frame.

        Raises:
            ProtocolError: no such segment, or it came before.
            LengthMismatch: the segment has another length here.
        """
        run = self._receives_of(rank, header)
        if run is None:
            return [self._pool.take(header.length)]
        segment = self.lowered.segments[run.start]
        with self._lock:
            if any(self._arrived[run.start : run.stop]):
                raise ProtocolError(f"segment {header.segment} of message {header.message} came twice")
            self._mark_arrived(run)
            is_stored = not segment.reduce and not segment.writes_payload
            if is_stored and not any(self._waiting_for[run.start : run.stop]):
                self._direct.add(run.start)
                return [self._memory.bytes_of(piece) for piece in self._targets(run)]
        return [self._pool.take(header.length)]

    def handle_data(self, rank: int, header: Header, payload: Sequence[memoryview]) -> None:
        """The payload of a DATA frame is in ``payload``, as given by ``views_for`` or from the pool."""
        run = self._receives_of(rank, header)
        if run is None:
            return
        if rank not in self._cleared and self.lowered.bytes_to.get(rank, 0) > EAGER_BYTES:
            self.handle_grant(rank)
        if run.start in self._direct:
            self._run(self._complete(run))
            return
        landed = Landed(run, payload[0] if payload else memoryview(b""))
        with self._lock:
            self._mark_arrived(run)
            self._staged.update(dict.fromkeys(run, landed))
            ready = [index for index in reversed(run) if not self._waiting_for[index]]
        self._run(ready)

    def ask(self) -> None:
        """Show the ranks that we wait for our signature: if they make another call, they will say so."""
        for rank in self.ranks_waited_for():
            self._send_control(Kind.ANNOUNCE, rank)

    def stop(self) -> None:
        """Send and complete nothing any more: the operation has failed."""
        with self._lock:
            self._stopped = True
            self._staged.clear()
            self._held.clear()
            self._payloads.clear()

    def release(self) -> None:
        """Hand scratch memory back; only once everything has completed."""
        self._memory.release(self._pool)

    # Questions ------------------------------------------------------------------------------------------------

    def ranks_waited_for(self) -> list[int]:
        """The ranks that still owe us data or a grant. None before it is launched: what came early may be all."""
        with self._lock:
            if not self._launched:
                return []
            owing = {
                segment.peer
                for i, segment in enumerate(self.lowered.segments)
                if segment.kind is OpKind.RECV and not self._arrived[i]
            }
            return sorted(owing | {rank for rank, held in self._held.items() if held})

    @property
    def wire_bytes_sent(self) -> int:
        """What this rank has sent once everything has completed, headers included."""
        if self.lowered.readers:
            return self._encoded_bytes_sent
        return sum(self.lowered.bytes_to.values()) + HEADER_BYTES * self._frames_sent

    def _receives_of(self, rank: int, header: Header) -> range | None:
        """The RECV segments that a DATA frame is for; None if its payload is longer than any: that ends the group.

        Raises:
            LengthMismatch: there are no such segments, or they have another length here.
        """
        index = self.lowered.receives.get((rank, header.message, header.segment))
        if index is None:
            raise LengthMismatch
        segment = self.lowered.segments[index]
        if segment.writes_payload and header.length > segment.num_bytes:
            self.wires.on_coding_failed(rank, _too_long(header, segment))
            return None
        if segment.writes_payload:
            return range(index, index + 1)
        run = self.lowered.run_of(index, header.length)
        if run is None:
            raise LengthMismatch
        return run

    def _targets(self, run: range) -> list[Piece]:
        return joined([segment.target for segment in self.lowered.segments[run.start : run.stop]])

    def _mark_arrived(self, run: range) -> None:
        """The lock is held."""
        self._arrived[run.start : run.stop] = bytes([1]) * len(run)

    # Running --------------------------------------------------------------------------------------------------

    def _run(self, ready: list[int]) -> None:
        """Execute ready segments, last first, and whatever becomes ready by that."""
        while ready:
            run = self._pop_run(ready)
            segment = self.lowered.segments[run.start]
            if segment.kind is OpKind.SEND:
                if self._post(run, segment):
                    ready += self._complete(run)
                continue
            if segment.kind is OpKind.RECV:
                for part, landed in self._pop_landed(run):
                    self._apply_received(part, landed)
                    ready += self._complete(part)
                continue
            if segment.kind is OpKind.ENCODE or segment.kind is OpKind.DECODE:
                if not self._code(segment):
                    return
            else:
                self._memory.apply_local(segment)
            ready += self._complete(run)

    def _pop_run(self, ready: list[int]) -> range:
        """The last ready segment, and those before it in the list that share its frame."""
        first = ready.pop()
        end, most = first + 1, self.lowered.run_ends[first]
        while end < most and ready and ready[-1] == end:
            ready.pop()
            end += 1
        run = range(first, end)
        segment = self.lowered.segments[first]
        if segment.kind is OpKind.SEND and len(run) > 1:
            pace = self.wires.pace(segment.peer)
            run = self.lowered.front(run, frame_bytes(self.lowered.num_bytes(run), pace))
            ready += range(end - 1, run.stop - 1, -1)
        return run

    def _pop_landed(self, run: range) -> list[tuple[range, Landed]]:
        """Of what is to be received next, what is here, and in which frames; the rest is applied when it arrives."""
        with self._lock:
            landed = [self._staged.pop(index, None) for index in run]
        parts: list[tuple[range, Landed]] = []
        begin = run.start
        for frame, group in groupby(landed):
            end = begin + len(list(group))
            if frame is not None:
                parts.append((range(begin, end), frame))
            begin = end
        return parts

    def _complete(self, run: range) -> list[int]:
        """Mark segments of one op complete; returns the segments that this makes ready, last first."""
        ready = []
        segments = self.lowered.segments
        read = None
        with self._lock:
            if self._stopped:
                return []
            if segments[run.start].reads_payload:
                read = self._read_payload(segments[run.start].payload)
            for index in run:
                for dependent in segments[index].dependents:
                    self._waiting_for[dependent] -= 1
                    if not self._waiting_for[dependent]:
                        ready.append(dependent)
            self._frames_sent += segments[run.start].kind is OpKind.SEND
            self._num_left -= len(run)
            done = not self._num_left
        if read is not None:
            self._pool.give(read)
        if done:
            self._on_done(self)
        ready.sort(reverse=True)
        return ready

    def _clear(self, rank: int, flags: int) -> list[int]:
        """``rank`` may be sent to from now on; returns what was held for it. (Data may have come before ``start``.)"""
        with self._lock:
            self._cleared.setdefault(rank, flags)
            return self._held.pop(rank, [])

    def _apply_received(self, run: range, landed: Landed) -> None:
        segment = self.lowered.segments[run.start]
        if segment.writes_payload:
            self._keep_payload(segment, landed.content, segment.peer)
            return
        begin = self.lowered.offsets[run.start] - self.lowered.offsets[landed.run.start]
        content = landed.content[begin : begin + self.lowered.num_bytes(run)]
        self._memory.apply_received(self._targets(run), content, reduce=segment.reduce)
        with self._lock:
            landed.num_left -= len(run)
            is_last = not landed.num_left
        if is_last:
            self._pool.give(landed.content)

    def _submit_encodes(self, ready: list[int]) -> list[int]:
        """Have encoded what can be, on the encoder's thread, in order; returns the other segments."""
        others = []
        for index in ready:
            if self.lowered.segments[index].kind is OpKind.ENCODE:
                self._encode_later(self._priority, partial(self._run, [index]))
            else:
                others.append(index)
        return others

    def _code(self, segment: Segment) -> bool:
        """Encode or decode; False if that failed, or there is no more need."""
        source: int | None = None
        try:
            if segment.kind is OpKind.ENCODE:
                buffer = self._pool.take(segment.num_bytes)
                num_bytes = 0 if self._stopped else self._memory.encode(segment, buffer)
                return self._keep_payload(segment, buffer[:num_bytes], None)
            with self._lock:
                payload = self._payloads.get(segment.payload)
            if payload is None:  # stopped meanwhile
                return False
            source = payload.source
            self._memory.decode(segment, payload.content)
        except Exception as error:
            # A codec may be anybody's, and nobody looks after what the encoder's thread raises.
            self.wires.on_coding_failed(source, error)
            return False
        return True

    def _keep_payload(self, segment: Segment, content: memoryview, source: int | None) -> bool:
        """Keep a segment of a payload for its readers; False if nobody reads any more."""
        readers = self.lowered.readers[segment.payload]
        with self._lock:
            if self._stopped:
                return False
            self._payloads[segment.payload] = _Payload(content, readers.total, source)
            self._encoded_bytes_sent += readers.sends * (HEADER_BYTES + len(content))
        return True

    def _read_payload(self, key: PayloadSegment) -> memoryview | None:
        """Somebody has read it; returns its memory if nobody else will. The lock is held."""
        payload = self._payloads[key]
        payload.num_readers -= 1
        if payload.num_readers:
            return None
        del self._payloads[key]
        return payload.content

    def _post(self, run: range, segment: Segment) -> bool:
        """Hand segments to the link in one frame, or hold them. True if they have left already."""
        flags = self._cleared.get(segment.peer)
        if flags is None:
            with self._lock:
                flags = self._cleared.get(segment.peer)
                if flags is None:
                    if not self._stopped:
                        self._held.setdefault(segment.peer, []).extend(run)
                    return False
        group, operation, tile = self.key
        payload: Sequence[memoryview] = ()
        num_bytes = self.lowered.num_bytes(run)
        if segment.reads_payload:
            with self._lock:
                kept = self._payloads.get(segment.payload)
            if kept is None:  # stopped meanwhile
                return False
            num_bytes = len(kept.content)
            payload = [kept.content] if num_bytes else ()
            if flags & FLAG_EAGER and num_bytes < segment.num_bytes:
                self.wires.return_allowance(segment.peer, segment.num_bytes - num_bytes)
        elif num_bytes:
            pieces = joined([each.source for each in self.lowered.segments[run.start : run.stop]])
            payload = [self._memory.bytes_of(piece) for piece in pieces]
        header = Header(
            Kind.DATA,
            group,
            operation,
            tile,
            segment.message,
            segment.position,
            num_bytes,
            self.signature,
            flags,
        )
        receipt = _Receipt(self, run)
        self.wires.link(segment.peer).send(header, payload, priority=self._priority, on_sent=receipt.on_sent)
        return receipt.left_at_once()

    def _send_control(self, kind: Kind, rank: int) -> None:
        group, operation, tile = self.key
        header = Header(kind, group, operation, tile, signature=self.signature)
        self.wires.link(rank).send(header, priority=CONTROL_PRIORITY)


def _too_long(header: Header, segment: Segment) -> CodecError:
    return CodecError(
        f"a payload of {header.length} bytes, where the codec makes at most {segment.num_bytes}"
    )


CONTROL_PRIORITY = 1 << 30  # control frames are tiny and others wait for them


class _Receipt:
    """Tells a send that completed before ``send`` returned from one that completes later on another thread.

    The former is reported to the caller, who goes on in its own loop: no recursion however long the chain.
    """

    __slots__ = ("_flight", "_left", "_returned", "_run")

    def __init__(self, flight: Flight, run: range) -> None:
        self._flight = flight
        self._run = run
        self._left = False
        self._returned = False

    def on_sent(self, error: BaseException | None) -> None:
        flight = self._flight
        if error is not None:
            flight.wires.on_send_failed(flight.lowered.segments[self._run.start].peer, error)
            return
        with flight._lock:
            self._left = True
            if not self._returned:
                return
        flight._run(flight._complete(self._run))

    def left_at_once(self) -> bool:
        with self._flight._lock:
            self._returned = True
            return self._left
