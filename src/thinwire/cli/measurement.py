"""What a bench asks for and what it finds, as data.

``algbw`` and ``busbw`` are those of nccl-tests (its doc/PERFORMANCE.md): algbw is the size over the time; busbw
multiplies it by the share of the size that every rank's link must carry at least, so that it can be held against
the link's own speed whatever the number of ranks. The size is that of the larger buffer of one rank.

Not here: running anything, and printing.
"""

from __future__ import annotations

import enum
import os
import platform
import statistics
from datetime import datetime
from pathlib import Path

import msgspec

from thinwire import __version__
from thinwire.clock import wall_time_s


class BenchKind(enum.StrEnum):
    ALL_REDUCE = "all-reduce"
    REDUCE_SCATTER = "reduce-scatter"
    ALL_GATHER = "all-gather"
    BROADCAST = "broadcast"
    ALL_TO_ALL = "all-to-all"
    SEND_RECV = "send-recv"  # every rank sends to the next and receives from the one before


def bus_factor(kind: BenchKind, num_ranks: int) -> float:
    """busbw over algbw.

    >>> bus_factor(BenchKind.ALL_REDUCE, 4), bus_factor(BenchKind.ALL_GATHER, 4), bus_factor(BenchKind.BROADCAST, 4)
    (1.5, 0.75, 1.0)
    """
    share = (num_ranks - 1) / num_ranks
    match kind:
        case BenchKind.ALL_REDUCE:
            return 2 * share
        case BenchKind.REDUCE_SCATTER | BenchKind.ALL_GATHER | BenchKind.ALL_TO_ALL:
            return share
        case BenchKind.BROADCAST | BenchKind.SEND_RECV:
            return 1.0


def sizes_between(min_bytes: int, max_bytes: int, factor: int) -> tuple[int, ...]:
    """``min_bytes``, then ``factor`` times more each, while not above ``max_bytes``.

    >>> sizes_between(1024, 20000, 4)
    (1024, 4096, 16384)
    """
    sizes = []
    while min_bytes <= max_bytes:
        sizes.append(min_bytes)
        min_bytes *= factor
    return tuple(sizes)


class BenchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the ranks are told to measure. ``backends`` are measured in turn, ``pairs`` times each."""

    kind: BenchKind
    num_ranks: int
    sizes_bytes: tuple[int, ...]
    backends: tuple[str, ...]
    pairs: int


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One collective of one size over one backend, in every turn it had.

    Attributes:
        size_bytes: the larger buffer of one rank, as really measured: a multiple of the ranks' number.
        times_s: for each turn, the mean time of one call on the slowest rank.
        num_wrong: elements, over all ranks, that differ from the exact result.
    """

    kind: BenchKind
    backend: str
    num_ranks: int
    size_bytes: int
    times_s: tuple[float, ...]
    num_wrong: int

    @property
    def time_s(self) -> float:
        """The median of the turns."""
        return statistics.median(self.times_s)

    @property
    def spread(self) -> float:
        """Half of the interquartile range, as a fraction of the median; 0 for a single turn."""
        if len(self.times_s) == 1:
            return 0.0
        low, _, high = statistics.quantiles(self.times_s, n=4, method="inclusive")
        return (high - low) / 2 / self.time_s

    @property
    def algbw(self) -> float:
        """Bytes per second."""
        return self.size_bytes / self.time_s

    @property
    def busbw(self) -> float:
        """Bytes per second."""
        return self.algbw * bus_factor(self.kind, self.num_ranks)


def speedup(ours: Measurement, theirs: Measurement) -> float:
    """How many times faster ``ours`` is: the median over the pairs of turns that were measured side by side."""
    return statistics.median(
        their_s / our_s for our_s, their_s in zip(ours.times_s, theirs.times_s, strict=True)
    )


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What a measurement depends on besides the code.

    Attributes:
        congestion_control: what the kernel gives to a TCP socket that asks for nothing.
        day: the date, ISO 8601.
    """

    thinwire: str
    python: str
    kernel: str
    num_cores: int
    congestion_control: str
    day: str

    @classmethod
    def of_this_machine(cls) -> Surroundings:
        setting = Path("/proc/sys/net/ipv4/tcp_congestion_control")
        return cls(
            thinwire=__version__,
            python=platform.python_version(),
            kernel=f"{platform.system()} {platform.release().split('-')[0]}",
            num_cores=os.cpu_count() or 1,
            congestion_control=setting.read_text().strip() if setting.exists() else "unknown",
            day=datetime.fromtimestamp(wall_time_s()).date().isoformat(),
        )

    def __str__(self) -> str:
        return f"{self.num_cores} cores, {self.kernel}, the system's TCP congestion control {self.congestion_control}"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What ``thinwire bench --json`` prints: everything needed to make the table again."""

    surroundings: Surroundings
    choices: str
    rows: tuple[Measurement, ...]
