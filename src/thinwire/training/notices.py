"""What ranks tell each other once a backward pass has ended: which parameters somebody used, and in which parcels
somebody's gradient was not finite; one small message.

A parameter that no rank used keeps its gradient as it is; a parcel that overflowed on one rank, and cannot say so
through a codec, becomes NaN on all. Not here: what follows (``data_parallel``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thinwire.runtime.communicator import Communicator
from thinwire.runtime.reduction import DTYPES, ReduceOp


class Notices:
    """Of one backward pass, on one rank.

    Args:
        communicator: for these messages only.
        used: by parameter, whether it has a gradient here.
        overflowed: by parcel, whether a gradient in it is not finite here.
    """

    def __init__(self, communicator: Communicator, used: Sequence[bool], overflowed: Sequence[bool]) -> None:
        self._flags = np.array([*used, *overflowed], np.uint8)
        self._num_parameters = len(used)
        self._job = communicator.all_reduce(self._flags, ReduceOp.MAX, DTYPES["uint8"])

    def unused(self) -> list[int]:
        """The parameters that no rank used. Waits for all ranks."""
        self._job.wait()
        return np.flatnonzero(self._flags[: self._num_parameters] == 0).tolist()

    def has_overflowed(self, parcel: int) -> bool:
        """Whether a rank's gradient in this parcel is not finite. Waits for all ranks."""
        self._job.wait()
        return bool(self._flags[self._num_parameters + parcel])
