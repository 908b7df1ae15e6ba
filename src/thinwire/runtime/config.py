"""The knobs of the runtime, each with its unit, its default's reason, and the environment variable that sets it.

A run is a Python value; the environment is for launchers and experiments. Not here: anything that changes results.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

import msgspec

from thinwire.errors import UsageError


class RuntimeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How an endpoint behaves.

    Attributes:
        interface: network interface, or address, to listen on and to connect from; None: by route to the peer.
        transport: "tcp" or "unix" to force one; None: Unix sockets between ranks of one host, else TCP.
        lanes: TCP connections to each peer. One fills a LAN; more help where a single flow is window-limited.
        congestion_control: the kernel's algorithm for our TCP sockets, e.g. "cubic"; None: CUBIC to near
            peers (a round trip under 5 ms), the system's default to far ones.
        cross_memory: let ranks of one host read large payloads straight from each other's memory where the kernel
            permits it.
        heartbeat_s: seconds without a word after which a peer is lost. Below about 1 s a busy host looks dead.
        connect_s: seconds to keep trying to reach a peer that is not up yet.
        algorithm: overrides the choice of algorithm, e.g. "ring" or "all_reduce=ring,all_to_all=bruck".
        trace: write this rank's trace to the path with ".rank<N>" appended; None: do not record.
    """

    interface: str | None = None
    transport: Literal["tcp", "unix"] | None = None
    lanes: int = 1
    congestion_control: str | None = None
    cross_memory: bool = True
    heartbeat_s: float = 10.0
    connect_s: float = 30.0
    algorithm: str | None = None
    trace: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.lanes <= 64:
            raise UsageError(f"lanes is {self.lanes}: use a number from 1 to 64")
        for name in ("heartbeat_s", "connect_s"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)}: use a positive number of seconds")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> RuntimeConfig:
        """The configuration that ``THINWIRE_<FIELD>`` variables ask for.

        Raises:
            UsageError: a value that cannot be read, or is out of range.

        >>> RuntimeConfig.from_environment({"THINWIRE_LANES": "4"}).lanes
        4
        """
        found = {
            field.name: environment[variable_of(field.name)]
            for field in msgspec.structs.fields(cls)
            if environment.get(variable_of(field.name))
        }
        try:
            return msgspec.convert(found, cls, strict=False)
        except msgspec.ValidationError as error:
            names = ", ".join(f"{variable_of(name)}={value}" for name, value in found.items())
            raise UsageError(f"cannot use the environment ({names}): {error}") from None


def variable_of(field: str) -> str:
    """The environment variable of a field.

    >>> variable_of("heartbeat_s")
    'THINWIRE_HEARTBEAT_S'
    """
    return f"THINWIRE_{field.upper()}"
