"""Rates, held by the kernel's token buckets.

A device that always sends at one rate has a TBF. One whose rate changes, or inside which some destinations
have a rate of their own, has an HTB: a trunk with the rate of all, below it a class for each such destination
and one for the rest. (A TBF whose burst shrinks keeps a longer packet that waits already, and all behind it,
forever.)

Both count Ethernet frames as they would leave a real card: a super-packet counts with the headers of every
frame it will become.
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
_MIN_BURST_BYTES = 3200  # two frames, and what is lost to rounding
_MAX_SUPER_PACKET_BYTES = 65536
_FASTEST_BYTES_PER_S = 30e9 / 8  # stands for "no limit" where the kernel wants a number
_GUARANTEED_BYTES_PER_S = 1000  # what a class may send without asking the trunk
_ROOT, _TRUNK, _REST, _FIRST_LINK = 0x10000, 0x10001, 0x10002, 0x10003
_ETH_P_IP = 0x0800

plugins["bfifo"] = plugins["pfifo"]  # pyroute2 does not know bfifo, whose only option has the same layout


@dataclass(slots=True)
class Bucket:
    """Where the kernel holds the rate of one pipe: a class of an HTB, or a TBF."""

    control: IPRoute
    device: int
    queue_bytes: int
    htb_class: int | None = None

    def set_rate(self, rate_bytes_per_s: float) -> None:
        """Change the rate from now on; what is queued stays queued. Only classes can."""
        assert self.htb_class is not None
        _set_class(self, "change-class", rate_bytes_per_s)


def limit(control: IPRoute, device: int, pipe: Pipe, links: Sequence[tuple[Pipe, str]] = ()) -> list[Bucket]:
    """Hold everything that leaves ``device`` to the rate of ``pipe``, and in it what goes to an address to
    its link's.

    Returns:
        The bucket of the pipe, then those of the links.

    Raises:
        UsageError: the kernel lacks a part.
    """
    try:
        if links or pipe.is_varying:
            return _limit_by_classes(control, device, pipe, links)
        rate = min(pipe.rate_bytes_per_s, _FASTEST_BYTES_PER_S)
        control.tc("add", "tbf", device, rate=_bits(rate), burst=_burst_bytes(rate), limit=pipe.queue_bytes)
        return [Bucket(control, device, pipe.queue_bytes)]
    except NetlinkError as error:
        raise UsageError(
            f"this kernel lacks a part that limits rates (modules sch_tbf, sch_htb, cls_u32): {error}"
        ) from error


def shorten_super_packets(control: IPRoute, device: int, rate_bytes_per_s: float) -> None:
    """Let the host hand ``device`` no packet longer than a burst.

    A TBF would cut it into single frames, at a cost; an HTB would send it in one go.
    """
    longest_bytes = min(_MAX_SUPER_PACKET_BYTES, _burst_bytes(rate_bytes_per_s))
    control.link("set", index=device, gso_max_size=longest_bytes)


def _limit_by_classes(
    control: IPRoute, device: int, pipe: Pipe, links: Sequence[tuple[Pipe, str]]
) -> list[Bucket]:
    control.tc("add", "htb", device, _ROOT, default=_REST)
    trunk = Bucket(control, device, pipe.queue_bytes, _TRUNK)
    _set_class(trunk, "add-class", pipe.rate_bytes_per_s)
    queue_bytes = pipe.queue_bytes or _burst_bytes(_FASTEST_BYTES_PER_S)
    _add_leaf(Bucket(control, device, queue_bytes, _REST), _FASTEST_BYTES_PER_S)
    buckets = [trunk]
    for index, (link, address) in enumerate(links):
        bucket = Bucket(control, device, link.queue_bytes, _FIRST_LINK + index)
        _add_leaf(bucket, link.rate_bytes_per_s)
        destination = f"0x{socket.inet_aton(address).hex()}/0xffffffff+16"
        control.tc(
            *("add-filter", "u32", device),
            parent=_ROOT,
            prio=1,
            protocol=_ETH_P_IP,
            target=bucket.htb_class,
            keys=[destination],
        )
        buckets.append(bucket)
    return buckets


def _add_leaf(bucket: Bucket, rate_bytes_per_s: float) -> None:
    _set_class(bucket, "add-class", rate_bytes_per_s)
    bucket.control.tc("add", "bfifo", bucket.device, parent=bucket.htb_class, limit=bucket.queue_bytes)


def _set_class(bucket: Bucket, verb: str, rate_bytes_per_s: float) -> None:
    """The trunk is guaranteed its rate; the classes below it borrow from it, up to theirs."""
    ceiling = min(rate_bytes_per_s, _FASTEST_BYTES_PER_S)
    is_trunk = bucket.htb_class == _TRUNK
    guaranteed = ceiling if is_trunk else _GUARANTEED_BYTES_PER_S
    bucket.control.tc(
        *(verb, "htb", bucket.device, bucket.htb_class),
        parent=_ROOT if is_trunk else _TRUNK,
        rate=_bits(guaranteed),
        ceil=_bits(ceiling),
        burst=_burst_bytes(guaranteed),
        cburst=_burst_bytes(ceiling),
        quantum=FRAME_BYTES,
    )


def _burst_bytes(rate_bytes_per_s: float) -> int:
    return max(_MIN_BURST_BYTES, int(min(rate_bytes_per_s, _FASTEST_BYTES_PER_S) * _BURST_S))


def _bits(rate_bytes_per_s: float) -> str:
    return f"{rate_bytes_per_s * 8:.0f}bit"
