"""The encoder's thread: most urgent first, else in order; and no thread before there is something to do."""

from __future__ import annotations

import threading

from thinwire.runtime.encoder import Encoder, at_once


def test_the_most_urgent_is_done_first_and_equals_in_order() -> None:
    encoder, done = Encoder(), []
    begun, go_on, end = threading.Event(), threading.Event(), threading.Event()
    encoder.submit(0, lambda: (begun.set(), go_on.wait(10)))
    assert begun.wait(10)
    for name, priority in (("a", 0), ("b", 0), ("c", 5), ("d", 5)):
        encoder.submit(priority, lambda name=name: done.append(name))
    encoder.submit(-1, end.set)
    go_on.set()
    assert end.wait(10)
    assert done == ["c", "d", "a", "b"]
    encoder.close()


def test_closing_waits_for_what_runs_and_drops_the_rest() -> None:
    encoder, done = Encoder(), []
    begun, go_on = threading.Event(), threading.Event()
    encoder.submit(0, lambda: (begun.set(), go_on.wait(10), done.append("running")))
    assert begun.wait(10)
    encoder.submit(0, lambda: done.append("waiting"))
    threading.Timer(0.01, go_on.set).start()
    encoder.close()
    assert done == ["running"]
    assert not any(thread.name == "thinwire encoder" for thread in threading.enumerate())


def test_an_encoder_that_was_never_used_has_no_thread() -> None:
    Encoder().close()


def test_at_once_is_at_once() -> None:
    done: list[int] = []
    at_once(3, lambda: done.append(1))
    assert done == [1]
