from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinwire.errors import UsageError
from thinwire.sim import VirtualClock
from thinwire.trace import Anchor, RankTrace, Recorder, Span, Trace, load, merge, write_chrome

GOLDEN = Path(__file__).parent / "golden_trace.json"


def span(name: str, start_s: float, end_s: float, track: str = "group 0", **arguments: int | str) -> Span:
    return Span(name=name, start_s=start_s, end_s=end_s, track=track, arguments=arguments)


def two_ranks() -> Trace:
    """Two ranks whose clocks have different origins; rank 1 has two operations in flight at once."""
    first = RankTrace(
        rank=0,
        host="anna",
        anchor=Anchor(clock_s=1000.0, wall_s=1_700_000_000.0),
        spans=(
            span("all_reduce", 1000.5, 1000.75, bytes=4096, algorithm="ring"),
            span("barrier", 1001.0, 1001.125, track="group 1"),
        ),
    )
    second = RankTrace(
        rank=1,
        host="bert",
        anchor=Anchor(clock_s=2.0, wall_s=1_700_000_000.0),
        spans=(
            span("all_reduce", 2.625, 2.75, bytes=4096, algorithm="ring"),
            span("broadcast", 2.6875, 3.0, bytes=8),
        ),
        num_dropped=3,
    )
    return Trace(ranks=(first, second))


def test_the_file_is_as_it_was(tmp_path: Path) -> None:
    """If the format has to change: raise SCHEMA_VERSION and put the new file, formatted, in place of the golden one."""
    write_chrome(tmp_path / "trace.json", two_ranks())
    written = msgspec.json.format((tmp_path / "trace.json").read_bytes(), indent=1)
    assert written.decode() == GOLDEN.read_text("utf-8").rstrip("\n")


def test_a_trace_comes_back_on_the_axis_of_the_file(tmp_path: Path) -> None:
    write_chrome(tmp_path / "trace.json", two_ranks())
    ranks = load(tmp_path / "trace.json").ranks
    assert [(rank.rank, rank.host, rank.num_dropped) for rank in ranks] == [(0, "anna", 0), (1, "bert", 3)]
    assert {rank.anchor for rank in ranks} == {Anchor(clock_s=0.0, wall_s=1_700_000_000.5)}
    assert ranks[0].spans == (
        span("all_reduce", 0.0, 0.25, bytes=4096, algorithm="ring"),
        span("barrier", 0.5, 0.625, track="group 1"),
    )
    assert ranks[1].spans == (
        span("all_reduce", 0.125, 0.25, bytes=4096, algorithm="ring"),
        span("broadcast", 0.1875, 0.5, bytes=8),
    )


def test_parts_merge_to_what_one_file_would_hold(tmp_path: Path) -> None:
    for rank in two_ranks().ranks:
        write_chrome(tmp_path / f"part{rank.rank}", Trace(ranks=(rank,)))
    write_chrome(tmp_path / "merged", merge([tmp_path / "part1", tmp_path / "part0"]))
    write_chrome(tmp_path / "whole", two_ranks())
    assert load(tmp_path / "merged") == load(tmp_path / "whole")


def test_two_parts_of_one_rank_do_not_merge(tmp_path: Path) -> None:
    write_chrome(tmp_path / "part", two_ranks())
    with pytest.raises(UsageError, match="rank 0 is in two of the traces"):
        merge([tmp_path / "part", tmp_path / "part"])


def test_what_is_no_trace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no trace at .*absent"):
        load(tmp_path / "absent")
    (tmp_path / "other").write_text('{"traceEvents": []}')
    with pytest.raises(UsageError, match=r"other is not a trace that thinwire wrote: .*otherData"):
        load(tmp_path / "other")
    write_chrome(tmp_path / "newer", two_ranks())
    newer = (tmp_path / "newer").read_bytes().replace(b'"thinwire_trace":1', b'"thinwire_trace":2')
    (tmp_path / "newer").write_bytes(newer)
    with pytest.raises(UsageError, match="trace of version 2; this thinwire reads version 1"):
        load(tmp_path / "newer")


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 100), st.sampled_from(["a", "b"])), max_size=30)
)
def test_spans_of_one_thread_never_overlap(
    tmp_path_factory: pytest.TempPathFactory, spans: list[tuple[int, int, str]]
) -> None:
    recorded = tuple(span("x", start, start + length, track) for start, length, track in spans)
    rank = RankTrace(rank=0, host="h", anchor=Anchor(clock_s=0.0, wall_s=0.0), spans=recorded)
    path = tmp_path_factory.mktemp("trace") / "trace.json"
    write_chrome(path, Trace(ranks=(rank,)))
    events = [event for event in msgspec.json.decode(path.read_bytes())["traceEvents"] if event["ph"] == "X"]
    assert len(events) == len(spans)
    ends: dict[int, float] = {}
    for event in events:
        assert event.get("ts", 0.0) >= ends.get(event["tid"], 0.0)
        ends[event["tid"]] = event.get("ts", 0.0) + event.get("dur", 0.0)


def test_a_recorder_anchors_its_clock_to_the_wall() -> None:
    clock = VirtualClock()
    recorder = Recorder(clock, wall_s=lambda: 77.0)
    recorder.span("all_reduce", 1.0, 2.0, "group 0", bytes=8)
    assert recorder.trace(rank=3, host="h") == RankTrace(
        rank=3,
        host="h",
        anchor=Anchor(clock_s=0.0, wall_s=77.0),
        spans=(span("all_reduce", 1.0, 2.0, bytes=8),),
    )


def test_threads_record_at_once_and_a_full_recorder_counts() -> None:
    recorder = Recorder(capacity=5000)

    def record() -> None:
        for number in range(2000):
            recorder.span("x", float(number), float(number), "t")

    threads = [threading.Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trace = recorder.trace(rank=0, host="h")
    assert len(trace.spans) + trace.num_dropped == 8000
    assert 5000 <= len(trace.spans) < 5004
