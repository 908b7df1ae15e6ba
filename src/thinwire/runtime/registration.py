"""Makes the backend known to torch.distributed, which imports the rest only when a first group is made.

torch itself calls ``register`` at the end of ``import torch``, through the entry-point group ``torch.backends``. So
``import thinwire`` need not import torch to keep its promise, whichever of the two comes first.

torch is imported in the functions only: whoever imports this module before torch would else have torch ask for
``register`` while the module is not there yet.

Not here: the backend (``process_group``).
"""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from thinwire.errors import UsageError

if TYPE_CHECKING:
    from thinwire.runtime.process_group import ThinwireProcessGroup

BACKEND = "thinwire"


def register() -> None:
    """Let ``init_process_group("thinwire")`` work, and ``monitored_barrier`` on its groups. Again: no effect."""
    import torch.distributed as dist
    from torch.distributed import distributed_c10d

    if BACKEND.upper() in dist.Backend._plugins:
        return
    dist.Backend.register_backend(BACKEND, _create, extended_api=True, devices=["cpu", "cuda"])
    dist.monitored_barrier = distributed_c10d.monitored_barrier = _admitting(
        distributed_c10d.monitored_barrier
    )


def replace(backend: str = "gloo") -> None:
    """Give thinwire to whoever asks for another backend by name from now on, in this process.

    ``dist.get_backend()`` goes on to answer with the name that was asked for, so a script that looks at it goes the
    way it went before. In a mixed configuration such as ``"cpu:gloo,cuda:nccl"`` thinwire carries the CUDA tensors
    too, because torch 2.13 lets a Python backend only stand for a group as a whole.

    Raises:
        UsageError: ``backend`` is not one that can be replaced.

    >>> replace("mpi")
    Traceback (most recent call last):
    thinwire.errors.UsageError: cannot replace 'mpi': only 'gloo' can be
    """
    if backend != "gloo":
        raise UsageError(f"cannot replace {backend!r}: only 'gloo' can be")
    from torch.distributed import distributed_c10d

    from thinwire.runtime.process_group import ThinwireProcessGroup

    class Substitute(ThinwireProcessGroup):
        """What torch makes where it would make a ``ProcessGroupGloo``, whose arguments it takes."""

        backend_name = "gloo"

    distributed_c10d.ProcessGroupGloo = Substitute  # type: ignore[misc, assignment]


def _create(options: Any, pg_options: Any) -> ThinwireProcessGroup:
    from thinwire.runtime.process_group import ThinwireProcessGroup

    return ThinwireProcessGroup(
        options.store, options.group_rank, options.group_size, options.timeout, options=pg_options
    )


def _admitting(monitored_barrier: Any) -> Any:
    """torch's ``monitored_barrier``, which refuses by name every backend but Gloo, for thinwire's groups too."""
    import torch.distributed as dist
    from torch.distributed import distributed_c10d

    @functools.wraps(monitored_barrier)
    def admitting(
        group: Any = dist.GroupMember.WORLD,
        timeout: timedelta | None = None,
        wait_all_ranks: bool = False,
    ) -> None:
        used: Any = group or distributed_c10d._get_default_group()
        if getattr(used, "backend_name", None) == BACKEND:
            used.monitored_barrier(timeout, wait_all_ranks)
        else:
            monitored_barrier(group, timeout, wait_all_ranks)

    return admitting
