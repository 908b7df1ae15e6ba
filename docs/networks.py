"""Draw a scenario of the lab: hosts, their wires, switches, pipes between sites, and what changes over time.

Everything comes from the network and the timeline that the lab itself builds from. A wire is as thick as its rate is
fast (logarithmically), and dashed where it changes. What this cannot draw (links between two hosts, changes other than
of rates and cuts, background traffic) it refuses, so that no picture leaves anything out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from docs.picture import COLOURS, FAINT, FONT, INK, PAPER
from thinwire.lab import Scenario
from thinwire.lab.network import Network, Pipe
from thinwire.lab.resolve import network_of
from thinwire.lab.timeline import Change, timeline

UP, DOWN, OVER_TIME = COLOURS[:3]
COLUMN, SITE_GAP, SIDE, MARGIN = 172, 120, 24, 56
HOST_WIDTH, HOST_HEIGHT, HOST_TOP = 104, 38, 22
SWITCH_TOP, SWITCH_HEIGHT = 196, 30
CHART_TOP, CHART_HEIGHT, CHART_LEFT = 286, 110, 108
HORIZON_S = 60
HEIGHT, HEIGHT_WITH_CHART = 248, 446

Steps = list[tuple[float, float]]  # (since when in s, Mbit/s), ascending


def network_picture(scenario: Scenario) -> str:
    """The picture as SVG."""
    network = network_of(scenario)
    if scenario.link or scenario.background:
        raise ValueError("links between two hosts and background traffic cannot be drawn yet")
    changing = {host: steps for host, steps in enumerate(_rates(scenario, network)) if len(steps) > 1}
    width = SIDE + MARGIN + network.num_hosts * COLUMN + (len(network.sites) - 1) * SITE_GAP
    height = HEIGHT_WITH_CHART if changing else HEIGHT
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" {FONT}>',
            f"<title>{scenario.summary}</title>",
            f'<rect width="{width}" height="{height}" rx="10" fill="{PAPER}"/>',
            *_site_pipes(network),
            *(line for host in range(network.num_hosts) for line in _host(network, host, host in changing)),
            *(line for site in range(len(network.sites)) for line in _switch(network, site)),
            *(_chart(network, changing, width) if changing else ()),
            "</svg>\n",
        ]
    )


def _rates(scenario: Scenario, network: Network) -> list[Steps]:
    """What each host's uplink carries, from when on; nothing while the host is cut off."""
    steps: list[Steps] = [[(0.0, _mbit(network.pipes[network.uplink(h)]))] for h in range(network.num_hosts)]
    wire = [history[0][1] for history in steps]
    cuts: set[int] = set()
    soon = itertools.takewhile(lambda change: change.at_s < HORIZON_S, timeline(scenario, network))
    for at_s, changes in itertools.groupby(soon, key=lambda change: change.at_s):
        for change in changes:
            _apply(change, wire, cuts)
        cut_off = {host for cut in cuts for host in network.hosts_named(scenario.cut[cut].between[0])}
        for host, history in enumerate(steps):
            mbit = 0.0 if host in cut_off else wire[host]
            if mbit != history[-1][1]:
                history.append((at_s, mbit))
    return steps


def _apply(change: Change, wire: list[float], cuts: set[int]) -> None:
    if change.what == "cut":
        cuts.symmetric_difference_update([change.number])
    elif change.what != "rate_bytes_per_s" or change.number >= 2 * len(wire):
        raise ValueError(f"{change} cannot be drawn yet")
    elif change.number < len(wire):  # an uplink; what changes downlinks changes them alike
        wire[change.number] = change.value * 8 / 1e6


def _host(network: Network, host: int, is_changing: bool) -> Iterator[str]:
    centre = _centre(network, host)
    top = HOST_TOP + HOST_HEIGHT
    up, down = network.pipes[network.uplink(host)], network.pipes[network.downlink(host)]
    for pipe, colour, offset, is_up in ((up, UP, -9, True), (down, DOWN, 9, False)):
        yield _wire(centre + offset, top, centre + offset, SWITCH_TOP, pipe, colour, is_changing)
        yield _arrow(centre + offset, top + 6 if not is_up else SWITCH_TOP - 6, colour, up=not is_up)
    yield _box(centre - HOST_WIDTH / 2, HOST_TOP, HOST_WIDTH, HOST_HEIGHT, INK)
    yield _text(centre, HOST_TOP + 24, network.hosts[host], colour=PAPER, bold=True)
    for line, (words, colour) in enumerate(_access_words(up, down)):
        yield _text(centre + 24, top + 38 + 18 * line, words, colour=colour, anchor="start", size=13)


def _access_words(up: Pipe, down: Pipe) -> Iterator[tuple[str, str]]:
    if up.rate_bytes_per_s == down.rate_bytes_per_s:
        yield _rate_words(up), INK
    else:
        yield f"{_rate_words(up)} up", UP
        yield f"{_rate_words(down)} down", DOWN
    if _other_words(up) != _other_words(down):
        yield from ((f"{words} up", UP) for words in _other_words(up))
        yield from ((f"{words} down", DOWN) for words in _other_words(down))
    else:
        yield from ((words, INK) for words in _other_words(up))


def _rate_words(pipe: Pipe) -> str:
    return _speed(_mbit(pipe)) if pipe.is_limited else "no limit"


def _other_words(pipe: Pipe) -> list[str]:
    words = []
    if pipe.delay_s:
        jitter = f" ± {pipe.jitter_s * 1e3:g}" if pipe.jitter_s else ""
        words.append(f"{pipe.delay_s * 1e3:g}{jitter} ms")
    if pipe.loss:
        words.append(f"{pipe.loss * 100:g} % lost")
    if burst := pipe.burst_loss:
        words.append(f"{burst.share * burst.loss * 100:g} % lost in bursts")
    return words


def _switch(network: Network, site: int) -> Iterator[str]:
    left, right = _extent(network, site)
    yield _box(left, SWITCH_TOP, right - left, SWITCH_HEIGHT, FAINT)
    name = "switch" if len(network.sites) == 1 else network.sites[site]
    yield _text((left + right) / 2, SWITCH_TOP + 20, name, bold=True, size=14)


def _site_pipes(network: Network) -> Iterator[str]:
    for (first, second), number in network.site_pipes.items():
        if second != first + 1:
            if first == second + 1:
                continue  # the way back, drawn with the way there
            raise ValueError("pipes between sites that are not neighbours cannot be drawn yet")
        there, back = network.pipes[number], network.pipes[network.site_pipes[second, first]]
        left, right = _extent(network, first)[1], _extent(network, second)[0]
        for pipe, colour, y in ((there, UP, SWITCH_TOP + 7), (back, DOWN, SWITCH_TOP + 23)):
            yield _wire(left, y, right, y, pipe, colour, is_changing=False)
        if (_rate_words(there), _other_words(there)) != (_rate_words(back), _other_words(back)):
            raise ValueError("pipes that differ by direction cannot be drawn yet")
        for line, words in enumerate([_rate_words(there), *_other_words(there)]):
            yield _text((left + right) / 2, SWITCH_TOP - 26 + 18 * line, words, size=13)


def _chart(network: Network, changing: dict[int, Steps], width: float) -> Iterator[str]:
    """The rate of the wires that change, which must all change alike."""
    histories = list(changing.values())
    if any(history != histories[0] for history in histories):
        raise ValueError("wires that change differently cannot be drawn yet")
    everybody = len(changing) == network.num_hosts
    names = "every wire" if everybody else ", ".join(network.hosts[host] for host in changing) + "'s wire"
    right, bottom = width - 60, CHART_TOP + CHART_HEIGHT
    most = max(mbit for _, mbit in histories[0])

    def x(at_s: float) -> float:
        return CHART_LEFT + at_s / HORIZON_S * (right - CHART_LEFT)

    def y(mbit: float) -> float:
        return bottom - mbit / most * CHART_HEIGHT

    yield _text(CHART_LEFT, CHART_TOP - 16, f"rate of {names}", anchor="start", bold=True, size=14)
    least = min(mbit for _, mbit in histories[0])
    for mbit in (least, most):
        yield f'<path d="M{CHART_LEFT} {y(mbit):g} H{right:g}" stroke="{FAINT}"/>'
        yield _text(CHART_LEFT - 10, y(mbit) + 4, _speed(mbit) if mbit else "0", anchor="end", size=13)
    yield f'<path d="M{CHART_LEFT} {bottom} H{right:g}" stroke="{INK}"/>'
    for at_s in range(0, HORIZON_S + 1, 10):
        yield _text(x(at_s), bottom + 22, f"{at_s} s", size=13)
    path = f"M{x(0):g} {y(histories[0][0][1]):g}" + "".join(
        f" H{x(at_s):g} V{y(mbit):g}" for at_s, mbit in histories[0][1:]
    )
    yield f'<path d="{path} H{right:g}" fill="none" stroke="{OVER_TIME}" stroke-width="3"/>'


def _mbit(pipe: Pipe) -> float:
    return pipe.rate_bytes_per_s * 8 / 1e6


def _speed(mbit: float) -> str:
    return f"{mbit / 1000:g} Gbit/s" if mbit >= 1000 else f"{mbit:g} Mbit/s"


def _centre(network: Network, host: int) -> float:
    """Where a host stands: sites one after the other, in each its hosts in rank order."""
    order = sorted(range(network.num_hosts), key=lambda other: (network.site_of[other], other))
    return SIDE + (order.index(host) + 0.5) * COLUMN + network.site_of[host] * SITE_GAP - 20


def _extent(network: Network, site: int) -> tuple[float, float]:
    """The left and the right end of a switch."""
    centres = [_centre(network, host) for host, home in enumerate(network.site_of) if home == site]
    return min(centres) - HOST_WIDTH / 2, max(centres) + HOST_WIDTH / 2


def _wire(x1: float, y1: float, x2: float, y2: float, pipe: Pipe, colour: str, is_changing: bool) -> str:
    thickness = 1 + 1.6 * math.log10(max(1.0, min(_mbit(pipe), 1e4)))
    dashes = ' stroke-dasharray="9 5"' if is_changing else ""
    return (
        f'<path d="M{x1:g} {y1:g} L{x2:g} {y2:g}" stroke="{colour}" stroke-width="{thickness:.1f}"{dashes}/>'
    )


def _arrow(x: float, y: float, colour: str, *, up: bool) -> str:
    away = 10 if up else -10
    tip = y - 6 if up else y + 6
    return f'<path d="M{x:g} {tip:g} L{x - 7:g} {tip + away:g} H{x + 7:g} Z" fill="{colour}"/>'


def _box(left: float, top: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" rx="6" fill="{colour}"/>'


def _text(
    x: float,
    y: float,
    words: str,
    *,
    colour: str = INK,
    anchor: str = "middle",
    size: int = 15,
    bold: bool = False,
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:g}" y="{y:g}" fill="{colour}" font-size="{size}" text-anchor="{anchor}"{weight}>'
        f"{words}</text>"
    )
