"""Rates, held by the kernel's token buckets.

A device that limits all it sends has a TBF. A device inside which some destinations have a limit of their own
has an HTB: a trunk with the limit of all, below it a class for each destination and one for the rest.

Both count Ethernet frames as they would leave a real card: a super-packet of 64 kB counts with the headers of
every frame it will become.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass

from pyroute2 import IPRoute, NetlinkError
from pyroute2.netlink.rtnl.tcmsg import plugins

from thinwire.errors import UsageError
from thinwire.lab.network import Pipe

FRAME_BYTES = 1514
_BURST_S = 0.001  # longer, and short trains of packets pass unshaped; shorter, and late timers cost rate
_FASTEST_BYTES_PER_S = 30e9 / 8  # stands for "no limit" where the kernel wants a number
_ROOT, _TRUNK, _REST, _FIRST_LINK = 0x10000, 0x10001, 0x10002, 0x10003
_GUARANTEED_BYTES_PER_S = 1000  # what a class may send without asking the trunk
_MAX_GSO_BYTES = 65536

plugins["bfifo"] = plugins["pfifo"]  # pyroute2 does not know bfifo, whose only option has the same layout


@dataclass(slots=True)
class Bucket:
    """Where the kernel holds the rate of one pipe: a TBF, or one class of an HTB."""

    control: IPRoute
    device: int
    queue_bytes: int
    htb_class: int | None = None

    def set_rate(self, rate_bytes_per_s: float) -> None:
        """Change the rate from now on; what is queued stays queued."""
        if self.htb_class is None:
            _set_tbf(self, "change", rate_bytes_per_s)
        else:
            _set_class(self, "change-class", rate_bytes_per_s)


def limit_device(control: IPRoute, device: int, pipe: Pipe) -> Bucket:
    """Hold everything that leaves ``device`` to the rate and queue of ``pipe``."""
    bucket = Bucket(control, device, pipe.queue_bytes)
    try:
        _set_tbf(bucket, "add", pipe.rate_bytes_per_s)
    except NetlinkError as error:
        raise UsageError(f"this kernel has no token bucket (module sch_tbf): {error}") from error
    return bucket


def limit_links(
    control: IPRoute, device: int, uplink: Pipe, links: Sequence[tuple[Pipe, str]]
) -> list[Bucket]:
    """Hold what leaves ``device`` to the rate of ``uplink``, and in it what goes to each address to its
    link's.

    Returns:
        The bucket of the uplink, then those of the links.
    """
    slowest = min(pipe.rate_bytes_per_s for pipe in (uplink, *(pipe for pipe, _ in links)))
    trunk = Bucket(control, device, uplink.queue_bytes, _TRUNK)
    rest = Bucket(control, device, uplink.queue_bytes or _burst_bytes(_FASTEST_BYTES_PER_S), _REST)
    buckets = [trunk]
    try:
        # A class sends a super-packet in one go: none may be longer than the slowest wire's burst.
        control.link("set", index=device, gso_max_size=min(_MAX_GSO_BYTES, _burst_bytes(slowest)))
        control.tc("add", "htb", device, _ROOT, default=_REST)
        _set_class(trunk, "add-class", uplink.rate_bytes_per_s)
        _set_class(rest, "add-class", _FASTEST_BYTES_PER_S)
        for index, (pipe, address) in enumerate(links):
            bucket = Bucket(control, device, pipe.queue_bytes, _FIRST_LINK + index)
            buckets.append(bucket)
            _set_class(bucket, "add-class", pipe.rate_bytes_per_s)
            destination = socket.inet_aton(address).hex()
            control.tc(
                "add-filter",
                "u32",
                device,
                parent=_ROOT,
                prio=1,
                protocol=0x0800,
                target=bucket.htb_class,
                keys=[f"0x{destination}/0xffffffff+16"],
            )
    except NetlinkError as error:
        raise UsageError(
            f"this kernel lacks a part that links between hosts need (modules sch_htb, cls_u32): {error}"
        ) from error
    return buckets


def _burst_bytes(rate_bytes_per_s: float) -> int:
    return max(2 * FRAME_BYTES, int(rate_bytes_per_s * _BURST_S))


def _bits(rate_bytes_per_s: float) -> str:
    return f"{min(rate_bytes_per_s, _FASTEST_BYTES_PER_S) * 8:.0f}bit"


def _set_tbf(bucket: Bucket, verb: str, rate_bytes_per_s: float) -> None:
    rate = min(rate_bytes_per_s, _FASTEST_BYTES_PER_S)
    bucket.control.tc(
        verb, "tbf", bucket.device, rate=_bits(rate), burst=_burst_bytes(rate), limit=bucket.queue_bytes
    )


def _set_class(bucket: Bucket, verb: str, rate_bytes_per_s: float) -> None:
    """The trunk is guaranteed its rate; the classes below it borrow from it, up to theirs."""
    rate = min(rate_bytes_per_s, _FASTEST_BYTES_PER_S)
    is_trunk = bucket.htb_class == _TRUNK
    bucket.control.tc(
        verb,
        "htb",
        bucket.device,
        bucket.htb_class,
        parent=_ROOT if is_trunk else _TRUNK,
        rate=_bits(rate if is_trunk else _GUARANTEED_BYTES_PER_S),
        ceil=_bits(rate),
        burst=_burst_bytes(rate),
        cburst=_burst_bytes(rate),
        quantum=FRAME_BYTES,
    )
    if not is_trunk and verb == "add-class":
        bucket.control.tc("add", "bfifo", bucket.device, parent=bucket.htb_class, limit=bucket.queue_bytes)
