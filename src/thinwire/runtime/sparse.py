"""The sum of sparse tensors, for gradients of embeddings: all ranks gather all entries and add them up alike.

Every rank then holds the same entries in the same order, so the results are equal bit for bit. Worth it while the
entries of all ranks together are fewer than the elements of the dense tensor.

Not here: compressed layouts (CSR and its kin), CUDA tensors, and other collectives; all are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from thinwire.errors import UsageError
from thinwire.runtime.reduction import ReduceOp

if TYPE_CHECKING:
    from thinwire.runtime.torch_calls import Reduction, TorchCalls


def all_reduce_sparse(group: TorchCalls, tensor: Tensor, reduction: Reduction) -> None:
    """``tensor`` becomes the coalesced sum, or average, of all ranks' tensors. Blocks.

    Args:
        group: the collectives to use.
        tensor: in COO layout, of one shape everywhere.
        reduction: a sum or an average.

    Raises:
        UsageError: another reduction.
    """
    if reduction.op is not ReduceOp.SUM or reduction.premultiply is not None:
        raise UsageError(
            "all_reduce of sparse tensors adds or averages: call .to_dense() for other operations"
        )
    own = tensor.detach().coalesce()
    counts = [torch.zeros(1, dtype=torch.int64) for _ in range(group._size)]
    group.allgather([counts], [torch.tensor([own._nnz()])]).wait()
    indices = [own.indices().new_empty((own.sparse_dim(), int(count))) for count in counts]
    values = [own.values().new_empty((int(count), *own.values().shape[1:])) for count in counts]
    works = [
        group.allgather([indices], [own.indices()]),
        group.allgather([values], [own.values()]),
    ]
    for work in works:
        work.wait()
    total = torch.sparse_coo_tensor(
        torch.cat(indices, dim=1), torch.cat(values), tensor.shape, check_invariants=False
    ).coalesce()
    with torch.no_grad():  # not detach(): an alias of a sparse tensor gets entries of its own
        tensor.copy_(total / group._size if reduction.average else total)
