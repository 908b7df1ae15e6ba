"""What the owner of a lab and its keeper say to each other: one request, one reply, a JSON line each."""

from __future__ import annotations

import msgspec

from thinwire.lab.scenario import Scenario
from thinwire.lab.state import LabRecord


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to build.

    Attributes:
        name: what to call the lab. None: after the scenario, with a number if need be.
        ends_with_owner: whether the end of the keeper's standard input ends the lab.
    """

    name: str | None
    scenario_name: str
    scenario: Scenario
    ends_with_owner: bool


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The lab that stands, or why it does not: the user's ``mistake``, or our ``failure``, a traceback."""

    record: LabRecord | None = None
    mistake: str = ""
    failure: str = ""
