"""A barrier that knows who is missing.

Every rank reports to rank 0, which answers all of them, the late ones too, with the ranks that it did not hear of in
time: so each rank that fails says why, and a rank that comes too late learns it at once.

Not here: the plain barrier, which is a collective like the others.
"""

from __future__ import annotations

import numpy as np

from thinwire.clock import SYSTEM_CLOCK
from thinwire.errors import CollectiveTimeoutError
from thinwire.runtime.communicator import Communicator
from thinwire.runtime.job import Job
from thinwire.runtime.operation import CallOptions
from thinwire.runtime.reduction import DTYPES

_BYTE = DTYPES["uint8"]
# A report that comes late must find its receive: waiting is limited here, not by the operation.
_UNLIMITED = CallOptions(timeout_s=1e9)


def monitored_barrier(
    communicator: Communicator, number: int, timeout_s: float, *, wait_all_ranks: bool
) -> None:
    """Return when every rank has come.

    Args:
        communicator: used for nothing else.
        number: how many such barriers came before on it.
        timeout_s: how long rank 0 waits for the others.
        wait_all_ranks: name all that are missing, not only the first.

    Raises:
        CollectiveTimeoutError: some did not come; the message names them.
        PeerError: one has died.
    """
    report = np.zeros(1, np.uint8)
    missing = np.zeros(communicator.num_ranks, np.uint8)
    if communicator.rank:
        communicator.send(report, 0, number, _BYTE, options=_UNLIMITED).wait()
        answer = communicator.recv(missing, 0, number, _BYTE, options=_UNLIMITED)
        if not _ended_by(answer, SYSTEM_CLOCK.now_s() + 2 * timeout_s):  # rank 0 may begin to wait only now
            missing[0] = 1
    else:
        others = range(1, communicator.num_ranks)
        deadline_s = SYSTEM_CLOCK.now_s() + timeout_s
        reports = [communicator.recv(report.copy(), r, number, _BYTE, options=_UNLIMITED) for r in others]
        for rank, job in zip(others, reports, strict=True):
            missing[rank] = not _ended_by(job, deadline_s) and (wait_all_ranks or not missing.any())
        for rank in others:
            communicator.send(missing, rank, number, _BYTE, options=_UNLIMITED)
    absent = ", ".join(map(str, np.flatnonzero(missing)))
    if absent:
        raise CollectiveTimeoutError(
            f"rank {absent} of {communicator.num_ranks} failed to pass monitored_barrier in {timeout_s:g} s"
        )


def _ended_by(job: Job, deadline_s: float) -> bool:
    """Wait for the job until then; False if it is still running. Raises the job's own error."""
    try:
        job.wait(max(0.0, deadline_s - SYSTEM_CLOCK.now_s()))
    except CollectiveTimeoutError:
        if job.done():
            raise
        return False
    return True
