"""Every error thinwire raises: one tree, one file.

Each message says what was expected, what was found and what to do. All of them are ``RuntimeError`` so that
scripts written for other torch.distributed backends catch them unchanged. ``assert`` is for our own bugs only.

Not here: errors of other libraries, which pass through unless they come from a user's mistake.
"""

from __future__ import annotations


class ThinwireError(RuntimeError):
    """The root: catch it to catch everything thinwire raises."""


class UsageError(ThinwireError, ValueError):
    """The caller broke the rules: a wrong option, an unsupported dtype, a missing file. Exit status 2."""


class ScenarioError(UsageError):
    """A network scenario cannot be built. The message says why; once it is known, also in which line.

    Attributes:
        path: where in the file: keys and indices from the top, e.g. ``("pipe", 0, "between")``.
    """

    def __init__(self, path: tuple[str | int, ...], reason: str) -> None:
        super().__init__(reason)
        self.path = path

    def __reduce__(self) -> tuple[type[ScenarioError], tuple[tuple[str | int, ...], str]]:
        return type(self), (self.path, str(self))


class PeerError(ThinwireError):
    """A peer died, fell silent, left, or broke the protocol: every operation that needs it fails with this.

    Attributes:
        rank: the peer's rank in the group whose operation failed.
        host: the peer's host name.
        reason: what broke, in words.
    """

    def __init__(self, rank: int, host: str, reason: str) -> None:
        super().__init__(f"rank {rank} on {host}: {reason}")
        self.rank = rank
        self.host = host
        self.reason = reason

    def __reduce__(self) -> tuple[type[PeerError], tuple[int, str, str]]:
        return type(self), (self.rank, self.host, self.reason)


class MismatchError(ThinwireError):
    """Two ranks called different things as the same operation. The message holds both sides."""


class CollectiveTimeoutError(ThinwireError, TimeoutError):
    """An operation did not end within its time limit. The message says who had not arrived."""


class AbortedError(ThinwireError):
    """The group was shut down or aborted while, or before, the operation ran."""


class ProtocolError(ThinwireError):
    """Bytes on a connection broke the wire format. The connection is closed; the process is not harmed."""


class AuthenticationError(ProtocolError):
    """The other side of a connection did not prove that it knows the job's secret. The connection is closed."""


class LinkError(ThinwireError):
    """A connection could not be made or kept: the address, the reason, and what to check."""


class ScheduleError(ThinwireError):
    """A schedule does not do what its collective promises. The message is a counterexample."""


class CodecError(ThinwireError):
    """A payload does not stand for any tensor of the shape asked for. The message says what does not fit."""


class StalledError(ThinwireError):
    """A simulation ended before what it was run for, which in life is a hang. The message says what waits."""
