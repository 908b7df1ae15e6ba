"""``thinwire.all_reduce``: torch's all_reduce, with a say in how faithfully the tensor travels.

Not here: training loops, and which fidelity is the right one.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import AllreduceOptions, ReduceOp, Work

from thinwire.codec.base import Codec
from thinwire.codec.text import parse
from thinwire.errors import UsageError
from thinwire.runtime.codec_memory import TensorMemory
from thinwire.runtime.process_group import ThinwireProcessGroup
from thinwire.runtime.torch_calls import Coded

EXACT = "exact"


def all_reduce(
    tensor: Tensor,
    op: ReduceOp.RedOpType = ReduceOp.SUM,
    group: dist.ProcessGroup | None = None,
    fidelity: str | Codec = EXACT,
    memory: TensorMemory | None = None,
    async_op: bool = False,
) -> Work | None:
    """Make every rank's ``tensor`` the sum, or the average, of all ranks' ``tensor``: the same bytes everywhere.

    With a codec, each rank's tensor travels encoded to the ranks that add it up, one part to each, and each part of the
    sum travels encoded to all: two encodes, whatever the number of ranks. All ranks decode the same bytes. It
    is computed in float32, and the tensor may be of any real floating-point type.

    Args:
        tensor: changed in place; of any shape, dense.
        op: ``ReduceOp.SUM`` or ``ReduceOp.AVG``; exactly, any.
        group: of the backend "thinwire"; None: the default group.
        fidelity: "exact", or a codec, or its text, such as "quantize(bits=4)"; equal on all ranks.
        memory: what is remembered of this tensor, ``CodecMemory()[name]``. With it, what a call leaves out is
            added to the next (error feedback), be it exact; without, it is lost. As large as the tensor, in float32.
        async_op: return at once; the ``Work`` that is returned tells when it is done, and so does its future, whose
            value is ``[tensor]``. Until then neither ``tensor`` nor ``memory`` is to be used.

    Raises:
        UsageError: a tensor, operation, group or memory that the codec cannot do with.
        PeerError: a rank is gone, or sent what cannot be decoded.
        MismatchError: the ranks disagree, be it about the codec.

    Source: the error feedback is that of F. Seide et al., "1-bit stochastic gradient descent and its application to
    data-parallel distributed training of speech DNNs", Interspeech 2014; S. P. Karimireddy et al., "Error feedback
    fixes SignSGD and other gradient compression schemes", ICML 2019.
    """
    codec = codec_of(fidelity)
    if codec is None:
        if memory is not None:
            _pay(memory, tensor)
        work: Work | None = dist.all_reduce(tensor, op, group, async_op)
        return work
    used = group or dist.group.WORLD
    if not isinstance(used, ThinwireProcessGroup):
        raise UsageError(
            f"a codec needs a group of the backend thinwire, found {type(used).__name__}: "
            'call init_process_group("thinwire"), or new_group(backend="thinwire")'
        )
    options = AllreduceOptions()
    options.reduceOp = op  # type: ignore[assignment]
    options.asyncOp = async_op
    encoded = used.allreduce([tensor], options, Coded(codec, memory))
    if async_op:
        return encoded
    encoded.wait()
    return None


def _pay(memory: TensorMemory, tensor: Tensor) -> None:
    """Add to ``tensor`` what earlier, less faithful calls left out of it."""
    owed = memory.take_residual()
    if owed.size:
        with torch.no_grad():
            tensor += torch.from_numpy(owed).reshape(tensor.shape).to(tensor)


def codec_of(fidelity: str | Codec) -> Codec | None:
    """What to encode with; None for "exact".

    Raises:
        UsageError: there is no such codec.
    """
    if fidelity == EXACT:
        return None
    return fidelity if isinstance(fidelity, Codec) else parse(fidelity)
