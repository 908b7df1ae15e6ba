"""Traces as files in Chrome's trace event format, which ui.perfetto.dev and chrome://tracing draw, and we read back.

A process is a rank, a thread is a track; time is microseconds since the first span of the file. Chrome draws spans
of one thread only if they nest, so a track whose spans overlap is spread over several threads. The file of one rank
and that of a whole job have the same form: ``merge`` makes one of many.

Format: "Trace Event Format", Google, 2016: JSON object form, complete ("X") and metadata ("M") events. What it does
not say, the time of the origin and the schema's version, is under ``otherData``.
"""

from __future__ import annotations

import heapq
import itertools
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import msgspec

from thinwire.errors import UsageError
from thinwire.trace.model import Anchor, Argument, RankTrace, Span, Trace

SCHEMA_VERSION = 1
_MICROSECONDS = 1e6
_DIGITS = 3  # nanoseconds

StrPath = str | os.PathLike[str]


class _Event(msgspec.Struct, omit_defaults=True):
    name: str
    ph: str
    pid: int
    tid: int = 0
    cat: str = ""
    ts: float = 0.0
    dur: float = 0.0
    args: dict[str, Argument] = {}


class _RankHeader(msgspec.Struct):
    rank: int
    host: str
    num_dropped: int


class _FileHeader(msgspec.Struct):
    thinwire_trace: int
    origin_s: float
    ranks: list[_RankHeader]


class _File(msgspec.Struct):
    otherData: _FileHeader
    traceEvents: list[_Event]


def write_chrome(path: StrPath, trace: Trace) -> None:
    """Write ``trace`` to a file, all ranks on one time axis."""
    starts = [_wall(rank.anchor, span.start_s) for rank in trace.ranks for span in rank.spans]
    origin_s = min(starts, default=0.0)
    header = _FileHeader(
        thinwire_trace=SCHEMA_VERSION,
        origin_s=origin_s,
        ranks=[_RankHeader(rank.rank, rank.host, rank.num_dropped) for rank in trace.ranks],
    )
    events = [event for rank in trace.ranks for event in _events(rank, origin_s)]
    Path(path).write_bytes(msgspec.json.encode(_File(otherData=header, traceEvents=events)))


def load(path: StrPath) -> Trace:
    """Read a file that ``write_chrome`` wrote. Times are seconds since the file's origin, to the nanosecond.

    Raises:
        UsageError: there is no such file, or it is not a thinwire trace of this version.
    """
    try:
        file = msgspec.json.decode(Path(path).read_bytes(), type=_File)
    except FileNotFoundError:
        raise UsageError(f"no trace at {os.fspath(path)}") from None
    except msgspec.DecodeError as error:
        raise UsageError(f"{os.fspath(path)} is not a trace that thinwire wrote: {error}") from None
    if file.otherData.thinwire_trace != SCHEMA_VERSION:
        raise UsageError(
            f"{os.fspath(path)} is a trace of version {file.otherData.thinwire_trace}; "
            f"this thinwire reads version {SCHEMA_VERSION}"
        )
    spans: defaultdict[int, list[Span]] = defaultdict(list)
    for event in file.traceEvents:
        if event.ph == "X":
            start_s, end_s = event.ts / _MICROSECONDS, (event.ts + event.dur) / _MICROSECONDS
            spans[event.pid].append(
                Span(name=event.name, start_s=start_s, end_s=end_s, track=event.cat, arguments=event.args)
            )
    anchor = Anchor(clock_s=0.0, wall_s=file.otherData.origin_s)
    return Trace(
        ranks=tuple(
            RankTrace(
                rank=found.rank,
                host=found.host,
                anchor=anchor,
                spans=tuple(spans[found.rank]),
                num_dropped=found.num_dropped,
            )
            for found in file.otherData.ranks
        )
    )


def merge(parts: Iterable[StrPath]) -> Trace:
    """All the ranks of several files in one trace, by rank.

    Raises:
        UsageError: as ``load``; or two files hold the same rank.
    """
    ranks = sorted((rank for part in parts for rank in load(part).ranks), key=lambda rank: rank.rank)
    for one, other in itertools.pairwise(ranks):
        if one.rank == other.rank:
            raise UsageError(f"rank {one.rank} is in two of the traces: merge those of one run only")
    return Trace(ranks=tuple(ranks))


def _wall(anchor: Anchor, clock_s: float) -> float:
    return anchor.wall_s + (clock_s - anchor.clock_s)


def _events(rank: RankTrace, origin_s: float) -> Iterable[_Event]:
    yield _metadata("process_name", rank.rank, 0, {"name": f"rank {rank.rank} on {rank.host}"})
    yield _metadata("process_sort_index", rank.rank, 0, {"sort_index": rank.rank})
    # Small numbers are subtracted before large ones are added: seconds since 1970 are exact only to 0.2 us.
    since_origin_s = rank.anchor.wall_s - origin_s
    for thread, (title, spans) in enumerate(_threads(rank.spans), start=1):
        yield _metadata("thread_name", rank.rank, thread, {"name": title})
        for span in spans:
            start_us = (since_origin_s + (span.start_s - rank.anchor.clock_s)) * _MICROSECONDS
            yield _Event(
                name=span.name,
                ph="X",
                pid=rank.rank,
                tid=thread,
                cat=span.track,
                ts=round(start_us, _DIGITS),
                dur=round((span.end_s - span.start_s) * _MICROSECONDS, _DIGITS),
                args=span.arguments,
            )


def _metadata(name: str, rank: int, thread: int, arguments: dict[str, Argument]) -> _Event:
    return _Event(name=name, ph="M", pid=rank, tid=thread, args=arguments)


def _threads(spans: Iterable[Span]) -> Iterable[tuple[str, list[Span]]]:
    """Titles and spans: for each track as many threads as it has spans at once."""
    tracks: defaultdict[str, list[Span]] = defaultdict(list)
    for span in spans:
        tracks[span.track].append(span)
    for track, of_track in tracks.items():
        for index, thread in enumerate(_without_overlap(of_track)):
            yield track if index == 0 else f"{track} ({index + 1})", thread


def _without_overlap(spans: Iterable[Span]) -> list[list[Span]]:
    """Each span goes to the first thread that is free when it starts."""
    threads: list[list[Span]] = []
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    for span in sorted(spans, key=lambda span: span.start_s):
        while busy and busy[0][0] <= span.start_s:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if not free:
            threads.append([])
            free.append(len(threads) - 1)
        thread = heapq.heappop(free)
        threads[thread].append(span)
        heapq.heappush(busy, (span.end_s, thread))
    return threads
