"""The process group: what torch holds in its hand for one group on one rank.

torch 2.13 lets Python subclass ``ProcessGroup`` (not ``Backend``, whose subclasses it cannot construct), so a group is
one object that answers for all its devices and for itself as its only backend. Nothing here blocks but meeting the
other ranks, ``monitored_barrier``, and the closing of the last group's endpoint.

Not here: the calls themselves (``torch_calls``), and the backend's registration (``registration``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import msgspec
import torch
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, ProcessGroup, Store
from torch.distributed.constants import default_pg_timeout

from thinwire.errors import AbortedError, UsageError
from thinwire.forecast import LinkEstimate, WireEstimate
from thinwire.runtime import shared_endpoint
from thinwire.runtime.communicator import Communicator
from thinwire.runtime.endpoint import Endpoint
from thinwire.runtime.futures import callback_of, calling_callbacks_of
from thinwire.runtime.job import Job
from thinwire.runtime.lanes import Completion, all_of
from thinwire.runtime.loopback import Loopback
from thinwire.runtime.monitored_barrier import monitored_barrier
from thinwire.runtime.operation import CallOptions
from thinwire.runtime.reduction import ReduceOp
from thinwire.runtime.rendezvous import Meeting, job_secret, meet
from thinwire.runtime.strand import Call, Strand
from thinwire.runtime.torch_buffers import HostStaging, Staging, reducible_dtype_of, staging_for_sum
from thinwire.runtime.torch_calls import TorchCalls, TorchOptions
from thinwire.runtime.work import Outputs, ThinwireWork
from thinwire.trace.model import Argument


@dataclass
class GroupOptions:
    """What torch asks of and tells to a backend besides calls; the names are torch's."""

    backend: str
    _timeout: timedelta
    group_name: str = ""
    global_ranks_in_group: list[int] = field(default_factory=list)
    call: CallOptions = field(default_factory=CallOptions)


class ThinwireProcessGroup(TorchCalls, ProcessGroup):  # type: ignore[misc]  # the stubs have overloads
    """One rank's side of one group.

    Made by torch for ``init_process_group("thinwire")`` and ``new_group``, or directly, for instance to have several
    ranks in one process as threads.

    Args:
        store: where the ranks meet; all give the same one, under a prefix of this group's own.
        rank: of this process in the group.
        size: number of ranks.
        timeout: for meeting, and the default for every call.
        options: defaults for every call: algorithm and priority.
        endpoint: the way to the network; by default the process's own, which is then opened and closed as needed.
        meeting: what meeting would find, when it is known already.

    Raises:
        CollectiveTimeoutError: not all ranks came in time.

    >>> group = ThinwireProcessGroup(torch.distributed.HashStore(), rank=0, size=1)
    >>> tensor = torch.ones(3)
    >>> group.allreduce([tensor]).wait()
    True
    >>> group.shutdown()
    """

    backend_name = "thinwire"

    def __init__(
        self,
        store: Store,
        rank: int,
        size: int,
        timeout: timedelta = default_pg_timeout,
        *,
        options: CallOptions | None = None,
        endpoint: Endpoint | None = None,
        meeting: Meeting | None = None,
    ) -> None:
        super().__init__(rank, size)  # type: ignore[call-arg]
        self.options = GroupOptions(self.backend_name, timeout, call=options or CallOptions())
        self._store = store
        self._rank = rank
        self._size = size
        self._desc = "undefined"
        self._owns_endpoint = endpoint is None
        self._endpoint = endpoint or shared_endpoint.acquire(job_secret(store))
        try:
            self._meeting = meeting or meet(store, rank, size, self._endpoint.contact, timeout)
        except BaseException:
            self._release_endpoint()
            raise
        self._lock = threading.Lock()
        self._strands: dict[str, Strand] = {}
        self._closed_because = ""
        self._loopback = Loopback(rank)
        self._num_splits = 0
        self._num_launched = 0
        self._num_monitored_barriers = 0
        self._coalescing: list[Job | Completion] | None = None

    # Who and what it is -----------------------------------------------------------------------------------------

    def rank(self) -> int:
        return self._rank

    def size(self) -> int:
        return self._size

    getRank = rank
    getSize = size

    def name(self) -> str:
        return self.backend_name

    _get_backend_name = name

    def getBackendName(self) -> str:
        """What torch's C++ side is told, which for "gloo" would look for Gloo's own objects inside."""
        return ThinwireProcessGroup.backend_name

    def getGroupName(self) -> str:
        return self.options.group_name

    def setGroupName(self, name: str) -> None:
        self.options.group_name = name

    def getGroupDesc(self) -> str:
        return self._desc

    def setGroupDesc(self, desc: str) -> None:
        self._desc = desc

    _set_group_name = setGroupName
    _set_group_desc = setGroupDesc
    group_name = property(getGroupName)
    group_desc = property(getGroupDesc)

    def get_group_store(self) -> Store:
        return self._store

    def _set_timeout(self, timeout: timedelta) -> None:
        self.options._timeout = timeout

    set_timeout = _set_timeout
    _set_default_timeout = _set_timeout

    # As its own backend -----------------------------------------------------------------------------------------

    supports_splitting = True
    supports_coalescing = False
    supports_time_estimate = False

    @property
    def _device_types(self) -> list[torch.device]:
        return [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]

    def _get_backend(self, device: torch.device) -> ThinwireProcessGroup:  # type: ignore[override]
        if device.type not in ("cpu", "cuda"):
            raise UsageError(f"thinwire has no backend for {device}: it carries CPU and CUDA tensors")
        return self

    def supports_tensor_alloc(self, device: torch.device) -> bool:
        return False

    def eager_connect_single_device(self, device: torch.device | None) -> None:
        """Connections are made when first needed, whatever the device."""

    def _set_sequence_number_for_group(self) -> None:
        """Calls are numbered from zero without being told to."""

    def _get_sequence_number_for_group(self) -> int:
        return self._num_launched

    # Life and death ---------------------------------------------------------------------------------------------

    def split_group(  # type: ignore[override]
        self,
        new_ranks: Sequence[int],
        timeout: timedelta | None = None,
        opts: GroupOptions | None = None,
        group_name: str | None = None,
        group_desc: str | None = None,
        device_types: Sequence[torch.device] | None = None,
    ) -> ThinwireProcessGroup | None:
        """The group of some ranks of this one; None on the others. Every rank of this group calls it."""
        self._num_splits += 1
        if self._rank not in new_ranks:
            return None
        name = group_name or f"{self.group_name}:split:{self._num_splits}"
        identity = self._meeting.derive(f"split {self._num_splits} {list(new_ranks)}")
        store = PrefixStore(f"{name}/", self._store)
        split = type(self)(
            store,
            list(new_ranks).index(self._rank),
            len(new_ranks),
            timeout or self.options._timeout,
            options=opts.call if opts else self.options.call,
            endpoint=None if self._owns_endpoint else self._endpoint,
            meeting=self._meeting.subset(new_ranks, identity),
        )
        split._set_group_name(name)
        split._set_group_desc(group_desc or f"{self.group_desc}:split:{self._num_splits}")
        return split

    def shutdown(self) -> None:
        """Leave the group in good order. What is under way fails with ``AbortedError``."""
        self._close("the process group was destroyed", Strand.close)

    def abort(self) -> None:
        """Fail every pending and later call of the group, on every rank."""

        def abort(strand: Strand) -> None:
            strand.communicator.abort("abort() was called")
            strand.close()

        self._close("the process group was aborted", abort)

    def _close(self, reason: str, close: Callable[[Strand], None]) -> None:
        with self._lock:
            if self._closed_because:
                return
            self._closed_because = reason
            strands = list(self._strands.values())
        for strand in strands:
            close(strand)
        self._release_endpoint()

    def _release_endpoint(self) -> None:
        if self._owns_endpoint:
            shared_endpoint.release(self._endpoint)

    def links(self) -> dict[int, LinkEstimate]:
        """What training has taught so far of the links to the other ranks, by rank; see ``Communicator.links``."""
        found = self._endpoint.links()
        contacts = enumerate(self._meeting.contacts)
        return {rank: found[contact.endpoint] for rank, contact in contacts if contact.endpoint in found}

    def wire(self) -> WireEstimate:
        """What training has taught so far of the wire to all other ranks together; see ``Communicator.wire``."""
        return self._endpoint.wire()

    def monitored_barrier(self, timeout: timedelta | None = None, wait_all_ranks: bool = False) -> None:
        """Return when every rank has called it, or say on every rank which ranks did not."""
        self._num_monitored_barriers += 1
        monitored_barrier(
            self._strand("monitored barrier").communicator,
            self._num_monitored_barriers,
            (timeout or self.options._timeout).total_seconds(),
            wait_all_ranks=wait_all_ranks,
        )

    # For training -----------------------------------------------------------------------------------------------

    def communicator(self, name: str) -> Communicator:
        """A communicator of the group's ranks whose calls have an order of their own: all ranks use the same name."""
        return self._strand(name).communicator

    def all_reduce_apart(
        self, name: str, tensor: Tensor, options: CallOptions, *, average: bool = False
    ) -> ThinwireWork:
        """The sum of all ranks' tensors, or their average, in place, as a call on ``communicator(name)``."""
        staging = staging_for_sum("all_reduce", [tensor], options.codec if self._size > 1 else None)
        data, dtype = staging.update(tensor), reducible_dtype_of("all_reduce", tensor.dtype)
        options = msgspec.structs.replace(options, timeout_s=self.options._timeout.total_seconds())
        strand = self._strand(name)
        end = strand.launch(
            lambda to: to.all_reduce(data, ReduceOp.SUM, dtype, average=average, options=options), staging
        )
        return ThinwireWork(self._track(end), [tensor], staging, strand)

    def record(self, name: str, start_s: float, end_s: float, track: str, /, **arguments: Argument) -> None:
        """Put a span into this process's trace, if there is one. Times are those of the system's clock."""
        if self._endpoint.recorder is not None:
            self._endpoint.recorder.span(name, start_s, end_s, track, **arguments)

    # Coalescing: everything between start and end begins at once and is waited for together ---------------------

    def _start_coalescing(self, device: torch.device) -> None:
        self._coalescing = []

    def _end_coalescing(self, device: torch.device) -> ThinwireWork:
        jobs, self._coalescing = self._coalescing or [], None
        return ThinwireWork(all_of(jobs), [], HostStaging(), self._strand(calling_callbacks_of()))

    # ------------------------------------------------------------------------------------------------------------

    def _launch(self, call: Call, staging: Staging, outputs: Outputs) -> ThinwireWork:
        strand = self._strand(calling_callbacks_of())
        return ThinwireWork(self._track(strand.launch(call, staging)), outputs, staging, strand)

    def _launch_message(self, call: Call, staging: Staging, tensor: Tensor) -> ThinwireWork:
        """Messages are matched by peer and tag, not by order, so one strand does for all threads."""
        strand = self._strand("")
        end = self._track(strand.launch(call, staging))
        return ThinwireWork(end, [tensor], staging, strand, is_message=True)

    def _launch_blocking(self, do: Callable[[], None], outputs: Outputs) -> ThinwireWork:
        """``do`` makes calls of its own and waits for them: as if it were the callback of a call made now."""
        strand = self._strand(calling_callbacks_of())
        end = Completion()

        def run() -> None:
            try:
                with callback_of(strand.name):
                    do()
            except Exception as error:
                end.set_exception(error)
            else:
                end.set_result(None)

        strand.callbacks.after(all_of([]), run)
        return ThinwireWork(self._track(end), outputs, HostStaging(), strand)

    def _track(self, end: Job | Completion) -> Job | Completion:
        self._num_launched += 1
        if self._coalescing is not None:
            self._coalescing.append(end)
        return end

    def _strand(self, key: str) -> Strand:
        strand = self._strands.get(key)
        if strand is None:
            with self._lock:
                strand = self._strands.get(key) or self._strands.setdefault(key, self._new_strand(key))
        return strand

    def _new_strand(self, key: str) -> Strand:
        if self._closed_because:
            raise AbortedError(f"{self._closed_because}: make a new one to go on")
        identity = self._meeting.derive(key) if key else self._meeting.group
        communicator = self._endpoint.communicator(
            self._rank, self._meeting.contacts, identity, self.options._timeout.total_seconds()
        )
        return Strand(communicator, f"{identity:016x}")

    def _call_options(self, opts: TorchOptions | None = None, shape: Sequence[int] = ()) -> CallOptions:
        limit = opts.timeout if opts and opts.timeout > timedelta(0) else self.options._timeout
        return msgspec.structs.replace(self.options.call, timeout_s=limit.total_seconds(), shape=tuple(shape))
