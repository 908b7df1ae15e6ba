"""What ranks tell each other when something has failed, and how both sides of a mismatch come together."""

from __future__ import annotations

import msgspec

QUESTION_AFTER_S = 2.0  # how long to wait for ranks before asking them whether they make the same call
MISMATCH_GRACE_S = 1.0  # how long to wait for the other side's description of a mismatched call


class FailReport(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of a FAIL frame: a rank tells its group that an operation has failed on it.

    Attributes:
        group, number: of a mismatch, the operation: the group's id or a stream's, and its number there.
        rank, host: who says so.
        reason: why, in words.
        call: of a mismatch, what that rank called; else empty.
        blamed: the rank that broke something, if the failure has one; else -1.
    """

    group: int
    number: int
    rank: int
    host: str
    reason: str
    call: str = ""
    blamed: int = -1


class LostReport(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of a LOST frame: an endpoint is gone. Passed on once by everybody, so that all survivors know."""

    endpoint: str
    reason: str


class Mismatch:
    """The sides of a mismatched call, as far as they are known. The owner locks."""

    def __init__(self, group: int, number: int, deadline_s: float) -> None:
        self.group = group
        self.number = number
        self.deadline_s = deadline_s
        self._calls: dict[tuple[int, str], str] = {}

    def add(self, rank: int, host: str, call: str) -> bool:
        """Record a side; says whether it is new."""
        if (rank, host) in self._calls:
            return False
        self._calls[rank, host] = call
        return True

    def is_settled(self, now_s: float) -> bool:
        """Whether two different sides are known, or waiting for the second has taken too long."""
        return len(set(self._calls.values())) > 1 or now_s >= self.deadline_s

    def sentence(self) -> str:
        sides = "; ".join(
            f"rank {rank} on {host} called {call}" for (rank, host), call in sorted(self._calls.items())
        )
        return f"the ranks disagree about operation {self.number}: {sides}. Make the same call on every rank"
