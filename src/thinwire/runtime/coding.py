"""How one operation encodes: its codec, the memory of what earlier encodes left out, and the seeds.

Error feedback is done here, for any codec: where the caller gives a memory, what an encode lacks is remembered and
added to the next encode of the same elements (``Codec.encode_with_residual``). The residual of an element is what
this rank owes to the sum, whether it encoded a contribution or, as the owner of a chunk, the sum itself. So nothing is
lost when the codec, the segments or the owners change: what is owed is paid with the next call. A codec with
feedback of its own is left to it: its residual is part of its state, and goes when the codec or the segments change.

Not here: threads (``encoder``), and which segments are encoded when (``flight``).
"""

from __future__ import annotations

import functools
import hashlib
import struct

import numpy as np

from thinwire.codec.base import Codec, Floats
from thinwire.runtime.codec_memory import TensorMemory
from thinwire.runtime.device_array import DeviceArray

TRIAL_SIZE = 64
_SEED_LAYOUT = struct.Struct("<QQQ")


class Coding:
    """A codec in one operation on one rank. Its segments may be encoded on several threads at once.

    Args:
        codec: equal on all ranks.
        memory: of the tensor; None: nothing is remembered, so what an encode lacks is lost.
        num_elements: of the tensor.
        rank: ours.
        number: of the operation in its group. With a memory the number of the call on that memory counts instead, so
            that a memory that was saved and restored goes on with the same bytes.
        on_device: the tensor, if it lies on a device: then what is owed to it does so too.

    Raises:
        UsageError: the memory belongs to a tensor of another size, or to an operation that has not ended.
    """

    def __init__(
        self,
        codec: Codec,
        memory: TensorMemory | None,
        num_elements: int,
        rank: int,
        number: int,
        on_device: DeviceArray | None = None,
    ) -> None:
        self.codec = codec
        self._memory = memory
        self._rank = rank
        self._number = number if memory is None else memory.begin(codec, num_elements)
        self._residual = None if memory is None else memory.residual_beside(on_device)

    def encode(self, values: Floats | DeviceArray, first_element: int, payload: memoryview) -> int:
        """Encode a segment into the front of ``payload``; returns how many bytes it took.

        Args:
            values: 1-D.
            first_element: the place of the first of them in the whole tensor.
        """
        if isinstance(values, DeviceArray):  # its codecs draw nothing and have no state
            return values.encode(self._owed_on_device(first_element, values.size), payload)
        codec, memory = self.codec, self._memory
        encoded = np.frombuffer(payload, np.uint8)
        seed = seed_of(self._rank, self._number, first_element)
        if memory is None:
            state = codec.initial_state(values.shape)
            return codec.encode_into(values, state, seed, encoded, state)
        state = memory.state(codec, first_element, values.shape)
        residual = self._owed(first_element, values.size)
        if not residual.size:
            return codec.encode_into(values, state, seed, encoded, state)
        if codec.has_feedback:  # it takes over what was owed before it came
            owed = values + residual
            residual.fill(0)
            return codec.encode_into(owed, state, seed, encoded, state)
        num_bytes = codec.encode_with_residual(values, residual, state, seed, encoded, state)
        _forget_what_is_not_finite(residual)
        return num_bytes

    def _owed(self, first_element: int, size: int) -> Floats:
        assert isinstance(self._residual, np.ndarray)
        return self._residual[first_element : first_element + size]

    def _owed_on_device(self, first_element: int, size: int) -> DeviceArray | None:
        if self._residual is None:
            return None
        assert isinstance(self._residual, DeviceArray)
        return self._residual[first_element : first_element + size]

    def end(self) -> None:
        """The operation has ended: its memory is free for the next."""
        if self._memory is not None:
            self._memory.end()


@functools.lru_cache(maxsize=256)
def compile_codec(codec: Codec) -> None:
    """Use the codec once, so that a kernel that is compiled when first used is compiled now, on the caller's thread.

    On a reader's thread it would look to the other ranks as if this one had fallen silent.
    """
    values, residual = np.ones(TRIAL_SIZE, np.float32), np.zeros(TRIAL_SIZE, np.float32)
    encoded = codec.encode(values)
    codec.add_decoded(encoded.payload, codec.decode(encoded.payload, values.shape))
    payload = np.empty(codec.payload_bound(values.shape), np.uint8)
    codec.encode_with_residual(values, residual, encoded.state, 0, payload, encoded.state)


def seed_of(rank: int, number: int, first_element: int) -> int:
    """64 bits that differ from encode to encode, and are the same whenever the same run is repeated.

    >>> seed_of(0, 0, 0) == seed_of(0, 0, 0) != seed_of(1, 0, 0)
    True
    """
    text = _SEED_LAYOUT.pack(rank, number, first_element)
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _forget_what_is_not_finite(residual: Floats) -> None:
    """A step that overflowed must not poison all that follow: GradScaler makes one now and then, and skips it."""
    with np.errstate(all="ignore"):
        if not np.isfinite(residual.sum()):
            residual[~np.isfinite(residual)] = 0.0
