"""What hosts are told to do and what they saw: the messages of a probe, as values.

An ``Experiment`` is what happens at one time: flows and trains between hosts, by number. Each host that takes part
gives a ``Report``; the reports of all, put together, are the ``Outcome``.

Not here: which experiments (``campaign``), doing them (``agent``), and getting them there and back (``coordinator``).
"""

from __future__ import annotations

import msgspec


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """Where an agent is found.

    Attributes:
        host: the machine's name. host_key: equal for agents that share a kernel and its network.
        sink: 32 hexadecimal digits that its sink answers greetings with.
        addresses: of its sink. unix: the same within the machine. port: of its datagrams.
    """

    host: str
    host_key: str
    sink: str
    addresses: tuple[str, ...]
    unix: str
    port: int


class Flow(msgspec.Struct, frozen=True):
    """TCP streams from one host to another, at an address of the second."""

    source: int
    destination: int
    address: str


class Exchange(msgspec.Struct, frozen=True):
    """Trains of small datagrams between two hosts, in both directions at once.

    Attributes:
        first, second: the hosts.
        first_ip, second_ip: their addresses.
    """

    first: int
    second: int
    first_ip: str
    second_ip: str

    def other_of(self, host: int) -> tuple[int, str]:
        """The other host and where it is reached, seen from ``host``."""
        return (self.second, self.second_ip) if host == self.first else (self.first, self.first_ip)


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """What happens at one time.

    Attributes:
        purpose: in words, for progress and messages.
        greet: every host finds out at which addresses it reaches the others.
        flows: each fills its path with one stream for ``alone_s``, then with ``num_streams`` for ``together_s``.
        exchanges: for ``train_s``, a datagram of ``datagram_bytes`` every ``interval_s``.
        congestion_control: of the flows; None: the system's default.
        patience_s: what connecting may take.
        linger_s: how long an exchange listens for late datagrams.
    """

    purpose: str
    greet: bool = False
    flows: tuple[Flow, ...] = ()
    alone_s: float = 0.0
    together_s: float = 0.0
    num_streams: int = 4
    exchanges: tuple[Exchange, ...] = ()
    train_s: float = 0.0
    interval_s: float = 0.01
    datagram_bytes: int = 64
    congestion_control: str | None = None
    patience_s: float = 4.0  # a lost first packet is sent again after 1 s, and after 2 s more
    linger_s: float = 0.5

    @property
    def duration_s(self) -> float:
        """How long it takes if everybody answers."""
        return max(self.alone_s + self.together_s, self.train_s)


class Reached(msgspec.Struct, frozen=True, kw_only=True):
    """An address at which a host reached another.

    Attributes:
        address: with the port. source: the address it was reached from.
        interface: of the source; empty if unknown.
        rtt_s: the round trip of its handshake.
    """

    address: str
    source: str
    interface: str
    rtt_s: float


class FlowReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a flow reached; None where there was too little to tell.

    Attributes:
        one_stream_bytes_per_s, several_streams_bytes_per_s: in its two phases.
        retransmitted: the fraction of its bytes that had to be sent again.
    """

    one_stream_bytes_per_s: float | None
    several_streams_bytes_per_s: float | None
    retransmitted: float | None = None


class Together(msgspec.Struct, frozen=True, kw_only=True):
    """What several flows carried at one time.

    Attributes:
        bytes_per_s: the sum.
        places: in ``Experiment.flows``, of those that were there all the time; two or more.
    """

    bytes_per_s: float
    places: tuple[int, ...]


class TrainReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one end of an exchange saw.

    Attributes:
        num_sent, num_received: datagrams it sent, and got from the other.
        num_expected: how many the other had sent from the first that came to the last. (The two may begin and end at
            different times, if an order got lost on its way; what was sent to nobody is not lost.)
        span_s: the time from the first that came to the last.
        delay_min_s, delay_median_s, jitter_s: the one-way delay from the other to here: least, median (both plus a
            constant of the two clocks) and standard deviation.
        rtt_min_s, rtt_median_s, rtt_p99_s, rtt_p999_s: from here to the other and back.
        has_jumped: a clock was set meanwhile: delays one way are unknown.
        burst_bytes_per_s: what trains of large datagrams from the other arrived at here, as a TCP stream would have it.
        burst_low_bytes_per_s, burst_high_bytes_per_s: the interval that it is in.
    """

    num_sent: int
    num_received: int
    num_expected: int = 0
    span_s: float = 0.0
    has_jumped: bool = False
    burst_bytes_per_s: float | None = None
    burst_low_bytes_per_s: float | None = None
    burst_high_bytes_per_s: float | None = None
    delay_min_s: float | None = None
    delay_median_s: float | None = None
    jitter_s: float | None = None
    rtt_min_s: float | None = None
    rtt_median_s: float | None = None
    rtt_p99_s: float | None = None
    rtt_p999_s: float | None = None


class Report(msgspec.Struct, kw_only=True):
    """What one host saw in an experiment.

    Attributes:
        reached: peer -> the addresses at which it answered, best first.
        sent: place in ``Experiment.flows`` -> what it reached, as acknowledged to this host, its source.
        received: the same as it arrived here, its destination.
        sent_together: what the flows carried of which it is the source. received_together: the same of those to here.
        trains: peer -> what the exchange with it showed.
        failures: peer -> why it could not be reached.
        error: what stopped this host altogether.
    """

    reached: dict[int, list[Reached]] = {}
    sent: dict[int, FlowReport] = {}
    received: dict[int, FlowReport] = {}
    sent_together: Together | None = None
    received_together: Together | None = None
    trains: dict[int, TrainReport] = {}
    failures: dict[int, str] = {}
    error: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What all hosts saw.

    Attributes:
        reports: host -> what it saw.
        silent: host -> why there is no report of it. It takes part in nothing any more.
    """

    reports: dict[int, Report]
    silent: dict[int, str] = {}
