"""Messages from every rank to every rank, begun at one step boundary and taken in at a later one.

All messages of one exchange travel in frames of one size, so that one all_gather does. Not here: what they say
(``agreement``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from thinwire.errors import ProtocolError, UsageError
from thinwire.runtime.communicator import Communicator
from thinwire.runtime.job import Job
from thinwire.runtime.reduction import DTYPES

_LENGTH_BYTES = 4
Frame = npt.NDArray[Any]


class Rounds:
    """One exchange at a time, on a communicator of its own."""

    def __init__(self, communicator: Communicator) -> None:
        self._communicator = communicator
        self._under_way: tuple[Job, list[Frame]] | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether an exchange has begun and was not taken in."""
        return self._under_way is not None

    def begin(self, message: bytes, frame_bytes: int) -> None:
        """Send ``message`` to all ranks; does not wait.

        Args:
            frame_bytes: equal on all ranks, and four more than the longest message at least.

        Raises:
            UsageError: the message is longer.
        """
        if len(message) + _LENGTH_BYTES > frame_bytes:
            raise UsageError(f"a message of {len(message)} bytes does not fit into a frame of {frame_bytes}")
        frame = np.zeros(frame_bytes, np.uint8)
        prefixed = len(message).to_bytes(_LENGTH_BYTES, "little") + message
        frame[: len(prefixed)] = np.frombuffer(prefixed, np.uint8)
        frames = [np.empty(frame_bytes, np.uint8) for _ in range(self._communicator.num_ranks)]
        job = self._communicator.all_gather(frame, frames, DTYPES["uint8"])
        self._under_way = job, frames

    def finish(self) -> list[bytes]:
        """Everybody's message, by rank; waits for the last one.

        Raises:
            ProtocolError: a frame's length makes no sense.
        """
        assert self._under_way is not None, "begin first"
        (job, frames), self._under_way = self._under_way, None
        job.wait()
        return [_message_in(frame) for frame in frames]

    def exchange(self, message: bytes, frame_bytes: int) -> list[bytes]:
        """``begin`` and ``finish``."""
        self.begin(message, frame_bytes)
        return self.finish()


def _message_in(frame: Frame) -> bytes:
    length = int.from_bytes(frame[:_LENGTH_BYTES].tobytes(), "little")
    if length > frame.size - _LENGTH_BYTES:
        raise ProtocolError(f"a message of {length} bytes in a frame of {frame.size}")
    return frame[_LENGTH_BYTES : _LENGTH_BYTES + length].tobytes()
