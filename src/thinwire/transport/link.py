"""A link over sockets: one priority queue, and the lanes that take the next frame from it when they are free.

How a link comes to be. Both sides may dial at the same moment; exactly one bundle of lanes must remain. Each side
decides under its own lock, when a connection has proved who it is: while a dial of mine has got through to the
handshake, I refuse yours if my endpoint id is the smaller one (``Verdict.YIELD``; you keep trying), and take yours, and
stop dialling, otherwise. So the smaller one never has both, and the larger one gives way. Frames leave when
all lanes stand; they arrive as soon as one does.

How it ends. Leaving: the queue drains, payloads by reference are pulled, each lane says GOODBYE. A peer that hears
GOODBYE on every lane leaves too. When each lane has said and heard it nothing is left to send, both sides
shut down their sockets for writing and read to the end, so nothing in flight is destroyed. Everything else is a loss:
told once to the owner, and to every frame that had not left.

Not here: sockets (``lane``), and dialling (``sockets``).
"""

from __future__ import annotations

import heapq
import itertools
import socket
import threading
from collections import deque
from collections.abc import Sequence

from thinwire.clock import Clock
from thinwire.errors import LinkError, ProtocolError
from thinwire.forecast import Traffic
from thinwire.protocol.frame import Header, Kind
from thinwire.protocol.handshake import Introduction, Verdict
from thinwire.protocol.reader import PIECES_MAX
from thinwire.transport.admission import CrossMemory
from thinwire.transport.base import LinkStatistics, OnSent, Receiver
from thinwire.transport.busy import BusyTime
from thinwire.transport.crossmemory import REFERENCE_BYTES_MIN
from thinwire.transport.lane import Lane, Outgoing
from thinwire.transport.refusals import Refusals
from thinwire.transport.tcp_info import TcpInfo

# What may be sent by reference before the peer has copied it. The rest stays in the queue, where priorities
# still count; this much is a fraction of a millisecond.
UNPULLED_BYTES_MAX = 8 << 20
_FIRST = -(1 << 63)  # before any priority: PULLED costs nothing and frees the peer's memory


class SocketLink:
    """The way to one peer. Implements ``thinwire.transport.base.Link``."""

    def __init__(
        self,
        peer: str,
        receiver: Receiver,
        clock: Clock,
        refusals: Refusals,
        receiving: BusyTime | None = None,
    ) -> None:
        self.peer = peer
        self.receiver = receiver
        self.clock = clock
        self.refusals = refusals
        self.lock = threading.Lock()  # held for bookkeeping only: never while calling out, reading or writing
        self.receiving = BusyTime(clock, receiving)
        self.ended = False
        self._kind = "none yet"
        self._made_s = clock.now_s()
        self._queue: list[tuple[int, int, Outgoing]] = []
        self._sequence = itertools.count()
        self._lanes: list[Lane] = []
        self._lanes_due = 0  # 0 until a bundle is chosen
        self._dialled_here = False  # whose bundle it is, once chosen
        self._admitted: set[int] = set()
        self._dials_in_handshake = 0
        self._idle: deque[Lane] = deque()
        self._unpulled_bytes = 0
        self._leaving = False
        self._refusal: LinkError | None = None  # what every further send is told
        self._goodbyes_said = self._goodbyes_heard = 0

    # For the owner.

    def send(
        self,
        header: Header,
        payload: Sequence[memoryview] = (),
        *,
        priority: int = 0,
        on_sent: OnSent | None = None,
    ) -> None:
        """See ``thinwire.transport.base.Link.send``."""
        frame = Outgoing(header, payload, on_sent)
        with self.lock:
            refusal = self._refusal
            if refusal is None:
                heapq.heappush(self._queue, (-priority, next(self._sequence), frame))
        if refusal is None:
            self._dispatch()
        else:
            frame.done(refusal)

    def statistics(self) -> LinkStatistics:
        """See ``thinwire.transport.base.Link.statistics``."""
        with self.lock:
            lanes = tuple(self._lanes)
        return LinkStatistics(
            transport=self._kind,
            lanes=len(lanes),
            bytes_sent=sum(lane.bytes_sent for lane in lanes),
            bytes_received=sum(lane.bytes_received for lane in lanes),
            frames_sent=sum(lane.frames_sent for lane in lanes),
            frames_received=sum(lane.frames_received for lane in lanes),
            last_received_s=max((lane.last_received_s for lane in lanes), default=self._made_s),
            last_sent_s=max((lane.last_sent_s for lane in lanes), default=self._made_s),
        )

    def tcp_infos(self) -> tuple[TcpInfo, ...]:
        """What the kernel knows of each of this link's TCP connections."""
        with self.lock:
            lanes = tuple(self._lanes)
        return tuple(info for lane in lanes if (info := lane.tcp_info()))

    def traffic(self) -> Traffic:
        """See ``thinwire.transport.base.Link.traffic``."""
        with self.lock:
            lanes = tuple(self._lanes)
        infos = self.tcp_infos()
        paces = [info.delivery_rate_bytes_per_s for info in infos if not info.is_app_limited]
        whole = self.receiving.whole
        return Traffic(
            timed_bytes=sum(lane.bytes_timed for lane in lanes),
            receiving_s=self.receiving.total_s(),
            all_receiving_s=whole.total_s() if whole else None,
            delivered_bytes=sum(info.bytes_acked for info in infos),
            sending_s=max((info.busy_s for info in infos), default=0.0),
            hindered_s=max((info.receiver_limited_s + info.buffer_limited_s for info in infos), default=0.0),
            unsent_bytes=sum(info.bytes_unsent for info in infos) if infos else None,
            sent_bytes=sum(info.bytes_sent for info in infos),
            retransmitted_bytes=sum(info.bytes_retransmitted for info in infos),
            unacknowledged_s=max((info.busy_s - info.receiver_limited_s for info in infos), default=0.0),
            pace_bytes_per_s=sum(paces) * len(infos) / len(paces) if paces else None,
            rtt_s=min((info.rtt_s for info in infos), default=None),
            rtt_min_s=min((info.min_rtt_s for info in infos if info.min_rtt_s), default=None),
        )

    def acknowledge(self) -> None:
        """See ``thinwire.transport.base.Link.acknowledge``."""
        with self.lock:
            lanes = tuple(self._lanes)
        for lane in lanes:
            lane.acknowledge()

    # For the transport: how the link comes to be.

    def wants_connection(self) -> bool:
        """Whether it makes sense to go on connecting to the peer."""
        with self.lock:
            return not self.ended and (self._dialled_here or not self._lanes_due)

    def begin_handshake(self) -> bool:
        """A dial of ours got through and may prove itself now; False if the peer's dial was taken instead."""
        with self.lock:
            if self.ended or (self._lanes_due and not self._dialled_here):
                return False
            self._dials_in_handshake += 1
            return True

    def end_handshake(self, verdict: Verdict | None, lanes: int) -> None:
        """What became of it; None if it failed."""
        with self.lock:
            self._dials_in_handshake -= 1
            if verdict is Verdict.WELCOME and not self._lanes_due:
                self._lanes_due, self._dialled_here = lanes, True

    def admit(self, introduction: Introduction) -> Verdict:
        """What to answer to a dial of the peer that has proved itself."""
        with self.lock:
            if self._leaving:
                return Verdict.LEAVING
            if not self.ended and (
                self._dialled_here
                or (self._dials_in_handshake and introduction.acceptor < introduction.dialer)
            ):
                return Verdict.YIELD
            if self.ended or introduction.lane in self._admitted:
                return Verdict.DUPLICATE
            if self._lanes_due not in (0, introduction.lanes):
                return Verdict.DUPLICATE
            self._lanes_due = introduction.lanes
            self._admitted.add(introduction.lane)
            return Verdict.WELCOME

    def attach(self, index: int, connection: socket.socket, cross_memory: CrossMemory) -> Lane | None:
        """A lane on this connection, which has been admitted; None if the link has ended meanwhile."""
        with self.lock:
            if self.ended:
                return None
            lane = Lane(self, index, connection, cross_memory)
            self._lanes.append(lane)
            self._kind = "unix" if connection.family == socket.AF_UNIX else "tcp"
            if cross_memory.by_reference:
                self._kind += "+cross-memory"
            if len(self._lanes) == self._lanes_due:
                self._idle.extend(self._lanes)
        self._dispatch()
        return lane

    # For the lanes.

    def release(self, lane: Lane) -> Outgoing | None:
        """The next frame for a lane that has written its last one; without one the lane is idle."""
        with self.lock:
            if self.ended:
                return None
            frame = self._next(lane)
            if frame is None:
                self._idle.append(lane)
            return frame

    def tell_pulled(self, lane_index: int, frames: int) -> None:
        """Let the peer know that this many payloads, sent by reference on that lane, were copied."""
        told = Outgoing(Header(Kind.PULLED, segment=lane_index, signature=frames))
        with self.lock:
            if not self.ended:
                heapq.heappush(self._queue, (_FIRST, next(self._sequence), told))
        self._dispatch()

    def pulled(self, lane_index: int, frames: int) -> None:
        """The peer says that it has copied the oldest payloads sent by reference on that lane.

        Raises:
            ProtocolError: there are not so many.
        """
        with self.lock:
            if self.ended:
                return
            unpulled = next((lane.unpulled for lane in self._lanes if lane.index == lane_index), deque())
            if not 1 <= frames <= len(unpulled):
                raise ProtocolError(
                    f"{frames} payloads pulled on lane {lane_index}, where {len(unpulled)} were due"
                )
            freed = [unpulled.popleft() for _ in range(frames)]
            self._unpulled_bytes -= sum(frame.header.length for frame in freed)
        self._dispatch()
        for frame in freed:
            frame.done()

    def goodbye_said(self) -> None:
        """A lane has written its GOODBYE."""
        with self.lock:
            self._goodbyes_said += 1
        self._finish()

    def goodbye_heard(self, goodbye: Header) -> None:
        """A lane has read the peer's GOODBYE."""
        with self.lock:
            self._goodbyes_heard += 1
            all_heard = self._goodbyes_heard == self._lanes_due
        if all_heard:
            self.receiver.on_frame(self.peer, goodbye, ())
            self.leave("it has left")
            self._finish()

    def leave(self, why: str) -> None:
        """Take no more frames, and say GOODBYE when those taken have left."""
        with self.lock:
            if not self._leaving:
                self._leaving = True
                self._refusal = self._refusal or LinkError(f"endpoint {self.peer}: {why}")
                if not self._lanes_due and not self._queue and not self._dials_in_handshake:
                    self.ended = True  # never used: nobody needs a goodbye
        self._dispatch()

    def end(self, reason: str) -> LinkError:
        """Break off: close every lane, and tell the owner unless one of the two sides was leaving.

        Returns what frames that have not left are told: the reason of the first call.
        """
        with self.lock:
            error = LinkError(f"endpoint {self.peer}: {reason}")
            if self.ended:
                return self._refusal or error
            self.ended = True
            self._refusal = error
            frames = [frame for _, _, frame in sorted(self._queue)]
            for lane in self._lanes:
                frames += lane.unpulled
                lane.unpulled.clear()
                lane.stop_writing()
            self._queue.clear()
            self._idle.clear()
        self.abort()
        try:
            if not self._leaving:
                self.receiver.on_lost(self.peer, reason)
        finally:
            for frame in frames:
                frame.done(error)
        return error

    def abort(self) -> None:
        """Shut every lane's socket, so that its threads end."""
        for lane in tuple(self._lanes):
            lane.shut_down(socket.SHUT_RDWR)

    def _finish(self) -> None:
        """When every lane has said and heard GOODBYE: say on the socket too that nothing follows."""
        with self.lock:
            if self.ended or not self._goodbyes_said == self._goodbyes_heard == self._lanes_due:
                return
            self.ended = True
            for lane in self._lanes:
                lane.stop_writing()
        for lane in self._lanes:
            lane.shut_down(socket.SHUT_WR)

    def _dispatch(self) -> None:
        """Give idle lanes what may leave now."""
        while True:
            with self.lock:
                for lane in self._idle:
                    frame = self._next(lane)
                    if frame is not None:
                        self._idle.remove(lane)
                        break
                else:
                    return
            lane.send_now(frame)

    def _next(self, lane: Lane) -> Outgoing | None:
        """The frame that this lane should write next, taken from the queue. Under the lock."""
        if self._queue:
            frame = self._queue[0][2]
            length = frame.header.length
            if lane.can_refer and length >= REFERENCE_BYTES_MIN and len(frame.payload) <= PIECES_MAX:
                if self._unpulled_bytes and self._unpulled_bytes + length > UNPULLED_BYTES_MAX:
                    return None
                frame.by_reference = True
                self._unpulled_bytes += length
                lane.unpulled.append(frame)
            heapq.heappop(self._queue)
            return frame
        if self._leaving and not self._unpulled_bytes and not lane.said_goodbye:
            lane.said_goodbye = True
            return Outgoing(Header(Kind.GOODBYE))
        return None
