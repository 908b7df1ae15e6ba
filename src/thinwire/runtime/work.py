"""What an asynchronous call returns: torch's ``Work`` over a job of the executor, and its future.

The futures of collectives are completed on a lane of their strand in the order in which the collectives were called,
so that their callbacks run in one order on every rank; never on a thread that the network needs, because callbacks
may block. The future of a message is completed when the message ends, since it may wait for any other.

Not here: starting jobs (``strand``), and what callbacks may do (``futures``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from torch import Tensor
from torch.distributed import Work

from thinwire.runtime.futures import StrandFuture
from thinwire.runtime.job import Job
from thinwire.runtime.lanes import Completion
from thinwire.runtime.strand import Strand
from thinwire.runtime.torch_buffers import Staging

Outputs = Sequence[Tensor] | Sequence[Sequence[Tensor]]


class ThinwireWork(Work):
    """One call under way.

    Args:
        end: ends when the outputs hold the result.
        outputs: the tensors that the future holds in the end.
        staging: how the outputs got there.
        strand: where it was called.
        is_message: whether it is a send or a receive.
    """

    def __init__(
        self,
        end: Job | Completion,
        outputs: Outputs,
        staging: Staging,
        strand: Strand,
        *,
        is_message: bool = False,
    ) -> None:
        super().__init__()
        self._end = end
        self._outputs = outputs
        self._staging = staging
        self._strand = strand
        self._is_message = is_message
        self._waited = False
        self._future: StrandFuture | None = None
        self._lock = threading.Lock()

    def wait(self, timeout: timedelta = timedelta(0)) -> bool:
        """Block until it has ended; for CUDA tensors, the current stream then waits for the last copy.

        Raises:
            ThinwireError: what went wrong.
            CollectiveTimeoutError: it has not ended after ``timeout`` (if positive); it goes on all the same.
        """
        self._end.wait(timeout.total_seconds() if timeout > timedelta(0) else None)
        self._waited = True
        self._staging.synchronize()
        return True

    def synchronize(self) -> None:
        """Make the current stream wait for the last copy, once the work has completed."""
        self._staging.synchronize()

    def is_completed(self) -> bool:
        return self._end.done()

    def is_success(self) -> bool:
        return self._end.done() and self._end.exception() is None

    def exception(self) -> BaseException | None:
        return self._end.exception() if self._end.done() else None

    def add_done_callback(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once it has ended: on a thread that the network needs, so it must not block."""
        self._end.add_done_callback(lambda _: callback())

    def source_rank(self) -> int:
        """The rank in the group that the received tensor came from."""
        return self._end.source

    _source_rank = source_rank

    def result(self) -> list[Any]:
        """The output tensors."""
        return list(self._outputs)

    def get_future(self) -> StrandFuture:
        """A future of the output tensors. It fails with the same error as ``wait``."""
        with self._lock:
            if self._future is not None:
                return self._future
            future = self._future = StrandFuture(self._strand.name, self._staging.devices)
        if self._waited:
            self._complete(future)
        elif self._is_message:
            self._end.add_done_callback(
                lambda _: self._strand.completions.submit(lambda: self._complete(future))
            )
        else:
            self._strand.callbacks.after(self._end, lambda: self._complete(future))
        return future

    def _complete(self, future: StrandFuture) -> None:
        try:
            self._end.wait()
        except Exception as error:
            future.set_exception(error)
            return
        with self._staging.finished_stream():
            future.set_result(self.result())
