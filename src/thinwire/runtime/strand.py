"""A strand: one ordered sequence of calls in a group, matched between ranks by their order.

A group has one strand for what its users' threads call, and another for what the callbacks of that strand's futures
call: the two race, differently on each rank, so they must not be numbered together. Each strand is a communicator
of its own over the same endpoint.

A call on CPU tensors goes straight to the communicator. From a strand's first CUDA tensor on, all its calls pass
through a lane that waits for the copy to the host, so that their order stays that of the program.

Not here: which call goes to which strand (``process_group``), and how tensors become arrays (``torch_buffers``).
"""

from __future__ import annotations

from collections.abc import Callable

from thinwire.runtime.communicator import Communicator
from thinwire.runtime.job import Job
from thinwire.runtime.lanes import Completion, InOrder, Lane
from thinwire.runtime.torch_buffers import Staging

Call = Callable[[Communicator], Job | Completion]


class Strand:
    """One strand of a group.

    Args:
        communicator: its own; closed with it.
        name: equal on all ranks, different for each strand of each group.

    Attributes:
        callbacks: where the futures of collectives are completed, in the order of the calls.
        completions: the lane for what follows the end of a call, in the order in which calls end.
    """

    def __init__(self, communicator: Communicator, name: str) -> None:
        self.communicator = communicator
        self.name = name
        self.callbacks = InOrder()
        self.completions = Lane()
        self._feeder: Lane | None = None

    def launch(self, call: Call, staging: Staging) -> Job | Completion:
        """Begin ``call``, which starts a job on the arrays of ``staging``; what is returned ends with its outputs.

        Never blocks. Errors of ``call`` itself are raised here, or by what is returned.
        """
        if not staging.needs_begin and self._feeder is None:
            job = call(self.communicator)
            return self._finish(job, staging, Completion()) if staging.needs_finish else job
        if self._feeder is None:
            self._feeder = Lane()
        end = Completion()
        self._feeder.submit(lambda: self._begin(call, staging, end))
        return end

    def close(self) -> None:
        """Take leave of the other ranks. What is under way fails with ``AbortedError``."""
        self.communicator.close()
        for lane in (self.callbacks, self.completions, self._feeder):
            if lane is not None:
                lane.close()

    def _begin(self, call: Call, staging: Staging, end: Completion) -> None:
        try:
            staging.begin()
            job = call(self.communicator)
        except Exception as error:
            end.set_exception(error)
            return
        self._finish(job, staging, end)

    def _finish(self, job: Job | Completion, staging: Staging, end: Completion) -> Completion:
        job.add_done_callback(lambda _: self.completions.submit(lambda: end.end_after(job, staging.finish)))
        return end
