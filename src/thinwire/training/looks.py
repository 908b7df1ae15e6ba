"""Looks at the wire: bytes without a meaning from every rank to every rank, when gradients leave it nothing to do.

Not here: when, and how many (``planner.lookout``), and what they tell (``wire_meter``).
"""

from __future__ import annotations

import numpy as np

from thinwire.runtime.communicator import Communicator
from thinwire.runtime.job import Job
from thinwire.runtime.operation import CallOptions
from thinwire.runtime.reduction import DTYPES

_BEHIND_GRADIENTS = CallOptions(priority=-1)


def look(communicator: Communicator, num_bytes: int) -> Job:
    """Send so many to each other rank; every rank calls it. Nobody has to wait for them."""
    received = [np.empty(num_bytes, np.uint8) for _ in range(communicator.num_ranks)]
    job = communicator.all_gather(
        np.zeros(num_bytes, np.uint8), received, DTYPES["uint8"], options=_BEHIND_GRADIENTS
    )
    # Or the wire meters of the others count the waiting for it.
    job.add_done_callback(lambda _: communicator.acknowledge())
    return job
