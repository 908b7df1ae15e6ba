"""Jobs: waiting, asking, being called."""

import threading

import pytest

from thinwire.errors import AbortedError, CollectiveTimeoutError
from thinwire.runtime.job import Job


def test_a_wait_that_is_too_short_says_so_and_the_job_goes_on() -> None:
    job = Job("all_reduce(float32[4], sum)")
    with pytest.raises(CollectiveTimeoutError, match=r"all_reduce.* did not end within 0\.001 s"):
        job.wait(timeout_s=0.001)
    assert not job.done()
    job.finish()
    job.wait()
    assert job.done()


def test_only_the_first_end_counts() -> None:
    job = Job("barrier()")
    assert job.finish(AbortedError("first"))
    assert not job.finish()
    with pytest.raises(AbortedError, match="first"):
        job.wait()
    assert isinstance(job.exception(), AbortedError)


def test_callbacks_run_once_before_and_after_the_end() -> None:
    job = Job("barrier()")
    called: list[str] = []
    job.add_done_callback(lambda _: called.append("before"))
    job.finish()
    job.add_done_callback(lambda _: called.append("after"))
    assert called == ["before", "after"]


def test_many_threads_may_wait() -> None:
    job = Job("barrier()")
    ended: list[int] = []
    threads = [threading.Thread(target=lambda: (job.wait(), ended.append(1))) for _ in range(8)]
    for thread in threads:
        thread.start()
    job.finish()
    for thread in threads:
        thread.join()
    assert len(ended) == 8
