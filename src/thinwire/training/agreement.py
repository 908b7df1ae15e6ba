"""How all ranks come to use one plan at one step: they tell each other what they measured, and decide alike.

A round begins at one step boundary and is taken in at the next, on every rank, so all have the same messages at the
same step. The decision is a pure function of them and of what was decided before, in arithmetic that is the same on
every machine; so each rank makes it for itself, nobody has to be asked, and a plan applies one step after what it rests
on was measured:

    step k        the network changes, and the step takes longer
    step k + 1    all ranks send what they measured of step k
    step k + 2    all ranks have heard it, and use the new plan

Which forms a rank cannot use is known from the start (``opening``). Messages name the plan in force, so ranks that have
drifted apart find out.

Sans-IO: bytes out, bytes in, no clock. Not here: carrying the messages (``rounds``), and deciding (``autopilot``).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from thinwire.errors import ProtocolError
from thinwire.training.meter import Measurement


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What every rank does from one step boundary on.

    Attributes:
        number: plans are counted.
        forms: names, one a bucket; a bucket beyond the last travels like the last.
        reason: one line.
        exposed_s: what is predicted to be exposed.
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
        plan: number of the plan that is in force.
        steps_to_next: rank 0's word on when the next round begins.
    """

    measured: Measurement
    plan: int
    steps_to_next: int = 1

    def encode(self) -> bytes:
        """For the wire."""
        return msgspec.msgpack.encode(self)


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """What all ranks said, the same on every rank.

    Attributes:
        measured: by rank.
        steps_to_next: when the next round begins.
    """

    measured: tuple[Measurement, ...]
    steps_to_next: int


def heard(messages: Sequence[bytes]) -> Round:
    """Take in what all ranks said, in rank order.

    Raises:
        ProtocolError: a message cannot be read, or the ranks use different plans: their steps are out of order.

    >>> heard([Message(measured=Measurement(), plan=1, steps_to_next=3).encode()] * 2).steps_to_next
    3
    """
    try:
        said = [msgspec.msgpack.decode(message, type=Message) for message in messages]
    except msgspec.DecodeError as error:
        raise ProtocolError(f"a message about plans cannot be read: {error}") from None
    if len({message.plan for message in said}) != 1:
        raise ProtocolError(
            f"the ranks use plans {[message.plan for message in said]}, by rank, and should use one: "
            "every rank must take every step"
        )
    return Round(
        measured=tuple(message.measured for message in said),
        steps_to_next=max(1, said[0].steps_to_next),
    )
