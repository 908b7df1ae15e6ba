from thinwire.sim.clock import VirtualClock


def test_timers_run_in_order_of_time_then_of_setting() -> None:
    clock, seen = VirtualClock(), list[tuple[str, float]]()
    for name, when_s in (("c", 2.0), ("a", 1.0), ("b", 1.0)):
        clock.call_at(when_s, lambda name=name: seen.append((name, clock.now_s())))  # type: ignore[misc]
    while clock.step():
        pass
    assert seen == [("a", 1.0), ("b", 1.0), ("c", 2.0)]


def test_a_cancelled_timer_is_never_called_and_takes_no_time() -> None:
    clock, seen = VirtualClock(), list[str]()
    clock.call_later(1.0, lambda: seen.append("kept"))
    clock.call_later(5.0, lambda: seen.append("cancelled")).cancel()
    while clock.step():
        pass
    assert (seen, clock.now_s(), clock.next_s()) == (["kept"], 1.0, None)


def test_a_timer_in_the_past_runs_now_but_not_inside_the_caller() -> None:
    clock, seen = VirtualClock(), list[str]()

    def first() -> None:
        clock.call_at(0.0, lambda: seen.append("second"))
        seen.append("first")

    clock.call_later(3.0, first)
    while clock.step():
        pass
    assert (seen, clock.now_s()) == (["first", "second"], 3.0)
