"""How all ranks come to use one numbered plan at one step: rounds of small messages, proposed by rank 0, vetoed by any.

In every round each rank tells all others what it measured and whether it can follow the last proposal; rank 0 adds its
next proposal and says in how many steps the next round is. A round begins at one step boundary and is taken in at the
next, on every rank, so all have the same messages at the same step:

    round r      rank 0 proposes plan 7
    round r + 1  every rank votes on plan 7; if nobody vetoes, all apply it as soon as they have these messages

Sans-IO: bytes out, bytes in, no clock. Not here: carrying the messages (``attach``), and what to propose
(``autopilot``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from thinwire.errors import ProtocolError
from thinwire.training.meter import Measurement


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What every rank does from one step boundary on.

    Attributes:
        number: plans are counted.
        forms: names, one a bucket; a bucket beyond the last travels like the last.
        reason: one line.
        exposed_s: what rank 0 predicts to be exposed.
    """

    number: int
    forms: tuple[str, ...]
    reason: str = ""
    exposed_s: float = 0.0

    def form_of(self, bucket: int) -> str:
        """The name of the form of a bucket."""
        return self.forms[min(bucket, len(self.forms) - 1)]


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank says in one round.

    Attributes:
        measured: what it saw.
        voted: number of the plan that it votes on; 0: none.
        veto: why it cannot follow that plan; empty if it can.
        proposal: rank 0's next plan.
        steps_to_next: rank 0's word on when the next round begins.
    """

    measured: Measurement
    voted: int = 0
    veto: str = ""
    proposal: Plan | None = None
    steps_to_next: int = 1


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a round led to, the same on every rank.

    Attributes:
        applied: the plan to use from now on, if there is a new one.
        vetoes: why it is not applied, by rank.
        measured: by rank.
        steps_to_next: when the next round begins.
    """

    applied: Plan | None
    vetoes: dict[int, str]
    measured: tuple[Measurement, ...]
    steps_to_next: int


class Agreement:
    """One rank's side of the rounds.

    Args:
        why_not: why this rank cannot do what a plan asks for; empty if it can.
        pending: the plan that is being voted on, if this goes on from a saved state.

    >>> ranks = [Agreement(lambda plan: "") for _ in range(2)]
    >>> proposal = Plan(number=1, forms=("exact",))
    >>> def round_of(proposal):
    ...     messages = [ranks[0].message(Measurement(), proposal), ranks[1].message(Measurement())]
    ...     return [rank.receive(messages) for rank in ranks]
    >>> [outcome.applied for outcome in round_of(proposal)]
    [None, None]
    >>> [outcome.applied.number for outcome in round_of(None)]
    [1, 1]
    """

    def __init__(self, why_not: Callable[[Plan], str], pending: Plan | None = None) -> None:
        self._why_not = why_not
        self._pending = pending

    @property
    def pending(self) -> Plan | None:
        """The plan that is being voted on."""
        return self._pending

    def message(self, measured: Measurement, proposal: Plan | None = None, steps_to_next: int = 1) -> bytes:
        """What to say in the next round. ``proposal`` and ``steps_to_next`` are rank 0's."""
        voted, veto = 0, ""
        if self._pending is not None:
            voted, veto = self._pending.number, self._why_not(self._pending)
        return msgspec.msgpack.encode(
            Message(measured=measured, voted=voted, veto=veto, proposal=proposal, steps_to_next=steps_to_next)
        )

    def receive(self, messages: Sequence[bytes]) -> Outcome:
        """Take in what all ranks said, in rank order.

        Raises:
            ProtocolError: a message cannot be read, or the ranks vote on different plans: their steps are out of order.
        """
        try:
            said = [msgspec.msgpack.decode(message, type=Message) for message in messages]
        except msgspec.DecodeError as error:
            raise ProtocolError(f"a message about plans cannot be read: {error}") from None
        voted = {message.voted for message in said}
        if voted != {self._pending.number if self._pending else 0}:
            raise ProtocolError(
                f"the ranks vote on plans {sorted(voted)}, here it is {self._pending}: every rank must take every step"
            )
        vetoes = {rank: message.veto for rank, message in enumerate(said) if message.veto}
        applied, self._pending = None if vetoes else self._pending, said[0].proposal
        return Outcome(
            applied=applied,
            vetoes=vetoes,
            measured=tuple(message.measured for message in said),
            steps_to_next=max(1, said[0].steps_to_next),
        )
