"""The Endpoint: one a process, shared by all its groups. It routes frames to flights and bad news to groups.

Everything arrives on the transport's threads. The endpoint owns one thread of its own, the monitor, which sleeps
until a heartbeat or a deadline is due; a simulation calls ``poll`` instead, with its own clock and transport.

Not here: what a frame of data does (``flight``), and what a failure means to a group (``group``).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

import msgspec

from thinwire.clock import SYSTEM_CLOCK, Clock
from thinwire.errors import LinkError, ProtocolError, ThinwireError
from thinwire.forecast import LinkEstimate, Traffic, WireEstimate
from thinwire.protocol.frame import Header, Kind
from thinwire.protocol.liveness import Liveness
from thinwire.runtime.communicator import Communicator
from thinwire.runtime.config import RuntimeConfig
from thinwire.runtime.encoder import Encoder, Submit
from thinwire.runtime.failure import FailReport, LostReport
from thinwire.runtime.flight import CONTROL_PRIORITY, FLAG_EAGER, Flight, Key, LengthMismatch
from thinwire.runtime.group import Group
from thinwire.runtime.inbox import Allowances, Credits, Early, Inbox, eager_cost
from thinwire.runtime.link_watch import LinkWatch
from thinwire.runtime.memory import BufferPool
from thinwire.runtime.operation import Operation
from thinwire.runtime.runs import Pace
from thinwire.trace import Recorder, Trace, write_chrome
from thinwire.transport.base import Contact, Link, LinkStatistics, OnSent, Transport
from thinwire.transport.options import SocketOptions
from thinwire.transport.sockets import SocketTransport

log = logging.getLogger(__name__)

LINK_SPAN = "link"  # a span of the trace that says what one link carried in its life
LEFT = "left: it destroyed its process group"
STAGING_BYTES = 40 << 20  # with the pool and the peers' allowances this stays under 64 MiB a rank


class StagingBudget:
    """Memory that tiles may hold beyond the user's tensors. ``force`` overdraws it: one tile a group may always go."""

    def __init__(self, limit_bytes: int = STAGING_BYTES) -> None:
        self._left_bytes = limit_bytes
        self._lock = threading.Lock()

    def take(self, num_bytes: int, *, force: bool) -> bool:
        with self._lock:
            if num_bytes and num_bytes > self._left_bytes and not force:
                return False
            self._left_bytes -= num_bytes
            return True

    def give(self, num_bytes: int) -> None:
        with self._lock:
            self._left_bytes += num_bytes


class Endpoint:
    """This process on the network. Thread-safe.

    Args:
        transport: carries frames.
        config: the knobs.
        clock: tells the time for deadlines, heartbeats and the trace.
        recorder: where spans go; None: nowhere.
        encode: has done what is to be encoded; None: a thread of its own does it.
    """

    def __init__(
        self,
        transport: Transport,
        config: RuntimeConfig,
        *,
        clock: Clock = SYSTEM_CLOCK,
        recorder: Recorder | None = None,
        encode: Submit | None = None,
    ) -> None:
        self.config = config
        self.clock = clock
        self.pool = BufferPool()
        self.staging = StagingBudget()
        self.allowances = Allowances()
        self.recorder = recorder
        self._encoder = Encoder()
        self.encode = encode or self._encoder.submit
        self._transport = transport
        self._liveness = Liveness(config.heartbeat_s)
        self._watch = LinkWatch()
        self._credits = Credits(self._send_credit)
        self._inbox = Inbox()
        self._lock = threading.Lock()
        self._flights: dict[Key, Flight] = {}
        self._groups: dict[int, Group] = {}  # by group id, and by the stream ids it receives on
        self._forgotten: set[int] = set()
        self._early_failures: dict[int, FailReport] = {}
        self._links: dict[str, Link] = {}
        self._contacts: dict[str, Contact] = {}
        self._lost: dict[str, str] = {}
        self._lost_reports: dict[tuple[str, str], str] = {}  # (who says so, who is lost) -> why
        self._left: set[str] = set()
        self._closing = False
        self._opened_s = clock.now_s()
        self._rank = -1  # in the first group, which is the whole job's: names this process in the trace
        self._monitor: _Monitor | None = None
        self.contact: Contact = transport.start(self)

    @classmethod
    def open(cls, secret: bytes, config: RuntimeConfig) -> Endpoint:
        """An endpoint on the real network, watched by a monitor, for the job that shares ``secret``.

        Raises:
            UsageError: the configuration names something this machine does not have.
        """
        options = SocketOptions(
            lanes=config.lanes,
            interface=config.interface,
            prefer=config.transport,
            congestion_control=config.congestion_control,
            cross_memory=config.cross_memory,
            connect_timeout_s=config.connect_s,
        )
        recorder = Recorder() if config.trace else None
        endpoint = cls(SocketTransport(secret, options), config, recorder=recorder)
        endpoint.start_monitor()
        return endpoint

    def start_monitor(self) -> None:
        """Watch heartbeats and deadlines on a thread. A simulation calls ``poll`` itself instead."""
        self._monitor = _Monitor(self)
        self._monitor.start()

    def communicator(
        self, rank: int, contacts: Sequence[Contact], group: int, timeout_s: float
    ) -> Communicator:
        """A group: ``contacts[r]`` is rank r, ``contacts[rank]`` this endpoint; ``group`` is its 64-bit id."""
        made = Group(self, rank, contacts, group, timeout_s)
        with self._lock:
            if self._rank < 0:
                self._rank = rank
            self._groups[group] = made
            self._contacts.update((contact.endpoint, contact) for contact in contacts)
            failure = self._early_failures.pop(group, None)
            reports = list(self._lost_reports.items())
        for contact in contacts:
            if contact.endpoint in self._lost:
                made.on_peer_lost(contact.endpoint, self._lost[contact.endpoint])
            elif contact.endpoint in self._left:
                made.on_peer_left(contact.endpoint, LEFT)
        for (reporter, lost), reason in reports:
            if reporter in made.peers() and lost in made.peers():
                made.on_peer_lost(lost, reason)
        if failure is not None:
            made.on_fail_report(failure)
        return Communicator(made, self.config.algorithm)

    def close(self, linger_s: float = 5.0) -> None:
        """Say goodbye to every peer and stop. Groups that are still open fail."""
        self._closing = True
        for group in dict.fromkeys(self._groups.values()):
            group.close()
        if self._monitor is not None:
            self._monitor.stop()
        self._encoder.close()
        self._transport.close(linger_s)
        for peer in list(self._links):  # those whose peers did not say goodbye meanwhile
            self._drop_link(peer)
        if self.recorder is not None and self.config.trace:
            trace = Trace(ranks=(self.recorder.trace(self._rank, self.contact.host),))
            write_chrome(f"{self.config.trace}.rank{self._rank}", trace)

    def links(self) -> dict[str, LinkEstimate]:
        """What traffic has taught of the link to each peer so far: by endpoint id."""
        return self._watch.estimates()

    def traffic(self) -> dict[str, Traffic]:
        """What each link has counted until now: by endpoint id."""
        return {peer: link.traffic() for peer, link in list(self._links.items())}

    def acknowledge(self) -> None:
        """Let the peers' kernels know now what has come from them."""
        for link in list(self._links.values()):
            link.acknowledge()

    def wire(self) -> WireEstimate:
        """What traffic has taught of this process's wire, all peers together."""
        return self._watch.wire()

    def pace(self, peer: str) -> Pace:
        """How fast the link to a peer is, as far as traffic has taught."""
        return self._watch.pace(peer)

    def carried(self) -> dict[str, LinkStatistics]:
        """What the link to each peer has carried so far: by endpoint id."""
        return {peer: link.statistics() for peer, link in list(self._links.items())}

    # For groups ------------------------------------------------------------------------------------------

    def link(self, contact: Contact) -> Link:
        """The way to a peer. To one that is gone: a link that fails whatever it is given."""
        peer = contact.endpoint
        if peer in self._lost or peer in self._left:
            return DeadLink(peer, self._lost.get(peer, LEFT))
        link = self._transport.link(contact)
        self._adopt(peer, link)
        return link

    def launch(self, flight: Flight) -> None:
        """Make a flight known, start it, and give it what came before."""
        with self._lock:
            self._flights[flight.key] = flight
            early = self._inbox.take(flight.key)
        for item in early:
            if item.header.kind is Kind.GRANT:
                self._deliver(flight, *item)
        flight.start()
        for item in early:
            if item.header.kind is not Kind.GRANT:
                self._deliver(flight, *item)
        flight.launched()

    def retire(self, key: Key, staging_bytes: int) -> None:
        """Forget a flight that has ended or failed."""
        self._flights.pop(key, None)
        self.staging.give(staging_bytes)

    def watch_stream(self, stream: int, group: Group) -> None:
        """Frames that come early on this stream are to be announced to the group."""
        self._groups[stream] = group

    def has_arrived(self, group: int, number: int) -> bool:
        with self._lock:
            return self._inbox.has_arrived(group, number)

    def forget(self, groups: Sequence[int]) -> None:
        """A group is gone, with its streams; whatever still comes for them is dropped."""
        with self._lock:
            self._forgotten.update(groups)
            leftovers = [item for group in groups for item in self._inbox.take_group(group)]
            for group in groups:
                self._groups.pop(group, None)
        for item in leftovers:
            self._return_credit(item.peer, item.header)

    def send_fail_report(self, link: Link, group: int, report: FailReport) -> None:
        self._send_message(link, Header(Kind.FAIL, group), report)

    def tell_lost(self, peer: str, reason: str, groups: Sequence[Group]) -> None:
        """Tell the other members of ``groups``, which have failed here, that ``peer`` is gone."""
        report = LostReport(endpoint=peer, reason=reason)
        for member in dict.fromkeys(member for group in groups for member in group.peers()):
            if member not in (peer, self.contact.endpoint):
                self._send_message(self.link(self._contacts[member]), Header(Kind.LOST), report)

    def record(self, operation: Operation, group: Group, error: ThinwireError | None) -> None:
        """Put an ended operation into the trace."""
        if self.recorder is not None:
            call = operation.plan.call
            self.recorder.span(
                operation.job.description,
                operation.started_s,
                self.clock.now_s(),
                group.track,
                number=operation.number,
                algorithm=operation.plan.schedule.algorithm,
                bytes=call.tiled_bytes,
                wire_bytes_sent=operation.wire_bytes_sent,
                codec=str(call.codec or "exact"),
                ok=error is None,
            )

    def _record_link(self, peer: str, link: Link) -> None:
        """Put what a link has carried into the trace, when it ends."""
        if self.recorder is not None:
            carried = link.statistics()
            self.recorder.span(
                LINK_SPAN,
                self._opened_s,
                self.clock.now_s(),
                "links",
                peer=peer,
                transport=carried.transport,
                bytes_sent=carried.bytes_sent,
                bytes_received=carried.bytes_received,
            )

    def wake_at(self, time_s: float) -> None:
        """Something is due at that time: see that the monitor is awake then."""
        if self._monitor is not None:
            self._monitor.wake_at(time_s)

    # Time -------------------------------------------------------------------------------------------------------

    def poll(self, now_s: float) -> float:
        """Send the heartbeats that are due, lose the silent, fail the late; returns when to be called again."""
        for peer, link in list(self._links.items()):
            statistics = link.statistics()
            self._liveness.on_received(peer, statistics.last_received_s)
            self._liveness.on_sent(peer, statistics.last_sent_s)
        heartbeats, silent, wake_s = self._liveness.poll(now_s)
        for peer in heartbeats:
            self._links[peer].send(Header(Kind.HEARTBEAT), priority=CONTROL_PRIORITY)
        for peer, silence_s in silent:
            self._lose(peer, f"no word from it for {silence_s:.1f} s: stopped, or cut off from the network")
        for group in dict.fromkeys(self._groups.values()):
            wake_s = min(wake_s, group.poll(now_s))
        return min(wake_s, self._watch.poll(now_s, self._links))

    # Receiver ---------------------------------------------------------------------------------------------------

    def on_header(self, peer: str, header: Header) -> Sequence[memoryview]:
        if header.kind is not Kind.DATA:
            if header.length > 64 << 10:
                raise ProtocolError(f"a {header.kind.name} frame of {header.length} bytes")
            return [memoryview(bytearray(header.length))]
        flight = self._flights.get((header.group, header.operation, header.tile))
        if flight is not None and flight.signature == header.signature:
            try:
                return flight.views_for(flight.wires.schedule_rank(peer), header)
            except LengthMismatch:
                self._on_mismatch(header)
        elif flight is None and header.flags & FLAG_EAGER:
            with self._lock:
                self._inbox.check_room(peer, header.length)
        return [self.pool.take(header.length)]

    def on_frame(self, peer: str, header: Header, payload: Sequence[memoryview]) -> None:
        if peer not in self._links and peer in self._contacts:
            self._adopt(
                peer, self._transport.link(self._contacts[peer])
            )  # the peer made the link: keep it alive too
        kind = header.kind
        if kind is Kind.DATA or kind is Kind.GRANT or kind is Kind.ANNOUNCE:
            key = (header.group, header.operation, header.tile)
            flight = self._flights.get(key)
            if flight is None:
                if self._is_for_finished(peer, header):
                    return
                with self._lock:
                    flight = self._flights.get(key)
                    if flight is None and not self._keep(key, Early(peer, header, list(payload))):
                        return
                if flight is None:
                    self._announce(header)
                    return
            self._deliver(flight, peer, header, payload)
        elif kind is Kind.CREDIT:
            self.allowances.restore(peer, header.signature)
        elif kind is Kind.FAIL:
            self._on_fail(header.group, _decode(payload, FailReport))
        elif kind is Kind.LOST:
            self._on_lost_report(peer, _decode(payload, LostReport))
        elif kind is Kind.GOODBYE:
            self._left.add(peer)
            self._drop_link(peer)
            for group in self._groups_of(peer):
                group.on_peer_left(peer, LEFT)

    def on_lost(self, peer: str, reason: str) -> None:
        if not self._closing:
            self._lose(peer, reason)

    # ------------------------------------------------------------------------------------------------------------

    def _deliver(self, flight: Flight, peer: str, header: Header, payload: Sequence[memoryview]) -> None:
        if header.signature != flight.signature:
            self._on_mismatch(header)
            return
        rank = flight.wires.schedule_rank(peer)
        if header.kind is Kind.GRANT:
            flight.handle_grant(rank)
        elif header.kind is Kind.ANNOUNCE:
            flight.handle_announce(rank)
        else:
            try:
                flight.handle_data(rank, header, payload)
            except LengthMismatch:
                self._on_mismatch(header)
            self._return_credit(peer, header)

    def _keep(self, key: Key, item: Early) -> bool:
        """Put an early frame aside; False if it belongs to something that is gone. The lock is held."""
        is_stray = item.header.kind is Kind.DATA and not item.header.flags & FLAG_EAGER
        if is_stray or key[0] in self._forgotten:
            self._return_credit(item.peer, item.header)
            return False
        self._inbox.put(key, item)
        return True

    def _is_for_finished(self, peer: str, header: Header) -> bool:
        """Whether a frame belongs to an operation that has ended here. If it describes another call: a mismatch."""
        group = self._groups.get(header.group)
        signature = group and group.signature_of_finished(header.group, header.operation)
        if group is None or signature is None:
            return False
        self._return_credit(peer, header)
        if signature != header.signature:
            group.on_mismatch(header.group, header.operation)
        return True

    def _announce(self, header: Header) -> None:
        group = self._groups.get(header.group)
        if group is not None and group.group != header.group:
            group.on_announced(header.group)

    def _return_credit(self, peer: str, header: Header) -> None:
        if header.kind is Kind.DATA and header.flags & FLAG_EAGER:
            self._credits.consumed(peer, eager_cost(header.length))

    def _on_mismatch(self, header: Header) -> None:
        flight = self._flights.get((header.group, header.operation, header.tile))
        if flight is not None:
            flight.wires.on_mismatch(header.group, header.operation)

    def _on_fail(self, group: int, report: FailReport) -> None:
        with self._lock:
            found = self._groups.get(group)
            if found is None and group not in self._forgotten:
                self._early_failures[group] = report
        if found is not None:
            found.on_fail_report(report)

    def _on_lost_report(self, reporter: str, report: LostReport) -> None:
        """A peer has lost another one: that breaks the groups that hold both, and makes us look for ourselves."""
        with self._lock:
            self._lost_reports[reporter, report.endpoint] = report.reason
            contact = self._contacts.get(report.endpoint)
        if report.endpoint == self.contact.endpoint or contact is None:
            return
        for group in self._groups_of(report.endpoint):
            if reporter in group.peers():
                group.on_peer_lost(report.endpoint, report.reason)
        if report.reason != LEFT:
            self.link(contact)

    def _lose(self, peer: str, reason: str) -> None:
        """A peer is gone: fail every group that holds it, and tell everybody who shares one of them."""
        with self._lock:
            if peer in self._lost:
                return
            self._lost[peer] = reason
        log.warning("lost endpoint %s: %s", peer, reason)
        self._drop_link(peer)
        groups = self._groups_of(peer)
        for group in groups:
            group.on_peer_lost(peer, reason)
        self.tell_lost(peer, reason, groups)

    def _groups_of(self, peer: str) -> list[Group]:
        return [found for found in dict.fromkeys(self._groups.values()) if peer in found.peers()]

    def _adopt(self, peer: str, link: Link) -> None:
        if self._links.setdefault(peer, link) is link:
            self._liveness.watch(peer, self.clock.now_s())
            self.wake_at(self.clock.now_s())

    def _drop_link(self, peer: str) -> None:
        link = self._links.pop(peer, None)
        if link is not None:
            self._record_link(peer, link)
            self._watch.forget(peer)
        self._liveness.forget(peer)

    def _send_credit(self, peer: str, amount: int) -> None:
        contact = self._contacts.get(peer)
        if contact is not None:
            self.link(contact).send(Header(Kind.CREDIT, signature=amount), priority=CONTROL_PRIORITY)

    def _send_message(self, link: Link, header: Header, message: msgspec.Struct) -> None:
        payload = memoryview(bytearray(msgspec.msgpack.encode(message)))
        link.send(header._replace(length=len(payload)), [payload], priority=CONTROL_PRIORITY)


def _decode(payload: Sequence[memoryview], kind: type[Any]) -> Any:
    try:
        return msgspec.msgpack.decode(b"".join(payload), type=kind)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"a {kind.__name__} that cannot be read: {error}") from None


class DeadLink:
    """The link to a peer that is gone: every frame fails."""

    def __init__(self, peer: str, reason: str) -> None:
        self.peer = peer
        self._reason = reason

    def send(
        self,
        header: Header,
        payload: Sequence[memoryview] = (),
        *,
        priority: int = 0,
        on_sent: OnSent | None = None,
    ) -> None:
        if on_sent is not None:
            on_sent(LinkError(self._reason))

    def traffic(self) -> Traffic:
        return Traffic()

    def acknowledge(self) -> None:
        pass

    def statistics(self) -> LinkStatistics:
        return LinkStatistics(
            transport="none",
            lanes=0,
            bytes_sent=0,
            bytes_received=0,
            frames_sent=0,
            frames_received=0,
            last_received_s=0.0,
            last_sent_s=0.0,
        )


class _Monitor(threading.Thread):
    """Calls ``endpoint.poll`` when something is due, and sleeps else."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(name="thinwire-monitor", daemon=True)
        self._endpoint = endpoint
        self._condition = threading.Condition()
        self._wake_s = float("-inf")
        self._stopping = False

    def run(self) -> None:
        clock = self._endpoint.clock
        while not self._stopping:
            with self._condition:
                self._wake_s = float("inf")
            due_s = self._endpoint.poll(clock.now_s())
            with self._condition:
                self._wake_s = min(self._wake_s, due_s)
                while not self._stopping and (left_s := self._wake_s - clock.now_s()) > 0:
                    self._condition.wait(min(left_s, threading.TIMEOUT_MAX))

    def wake_at(self, time_s: float) -> None:
        if time_s < self._wake_s:
            with self._condition:
                if time_s < self._wake_s:
                    self._wake_s = time_s
                    self._condition.notify()

    def stop(self) -> None:
        with self._condition:
            self._stopping = True
            self._condition.notify()
        if threading.current_thread() is not self:
            self.join()
