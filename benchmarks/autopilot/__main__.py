"""Training in the lab's networks: the autopilot beside exact thinwire, DDP over Gloo, torchft's DiLoCo and hivemind.

    python -m benchmarks.autopilot --models images --networks office-100m --ways "thinwire auto;Gloo"
    python -m benchmarks.autopilot --seeds 0,1,2 --append benchmarks/results/autopilot.json --missing
    python -m benchmarks.autopilot --plot docs

Four ranks train the same model from the same weights on the same batches, with a learning rate that rises in the first
tenth of ``--steps`` and falls to zero, so that the quality at the end means something. What a way computes depends on
the network only if it adapts: the autopilot is trained to the end everywhere, the others over unlimited links, and
where they are not, ``--short-steps`` or ``--short-seconds`` of it tell the step time. "Infinite" is the exact job over
links without a limit, measured before, between and after the ways of one network. In ``loopback`` the ranks are
processes of one host, in the other networks each has a host of its own. Bytes are those that rank 0's
interface sent, headers included.

``--missing`` goes on where an earlier call ended, and measures again what other programs disturbed. torchft and
hivemind need ``--peers-python`` (``peers.py`` says how to install them). Needs root or user namespaces (see the guide
to the lab) and, for ``images``, the Debian package dataset-fashion-mnist.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

from benchmarks.autopilot.measure import NETWORKS, Order, part, ways_of
from benchmarks.autopilot.models import NUM_STEPS, TASKS
from benchmarks.autopilot.plots import draw
from benchmarks.autopilot.runs import RESULTS, append, load
from benchmarks.autopilot.ways import WAYS


def main() -> None:
    default = Order(num_steps=0)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.autopilot",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", default=",".join(TASKS), help="separated by commas")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="separated by commas")
    parser.add_argument("--ways", default=";".join(WAYS), help="separated by semicolons")
    parser.add_argument(
        "--seeds", default="0", help="separated by commas; the first for all ways, more for the quality"
    )
    parser.add_argument("--steps", type=int, help=f"of a whole training; if you say nothing {NUM_STEPS}")
    parser.add_argument("--seconds", type=float, default=default.whole_s, help="that it may take")
    parser.add_argument("--short-steps", type=int, default=default.short_steps)
    parser.add_argument("--short-seconds", type=float, default=default.short_s)
    parser.add_argument("--peers-python", default=default.peers_python, help="has torchft and hivemind")
    parser.add_argument("--append", type=Path, help="put the runs into this file, in place of older ones")
    parser.add_argument(
        "--missing", action="store_true", help="only what that file does not have from a quiet machine"
    )
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="only draw what was measured before")
    options = parser.parse_args()
    if options.plot:
        results = load(options.append or RESULTS)
        for model in sorted({run.model for run in results.runs}):
            draw(results, model, options.plot / f"autopilot_{model}.png")
        return
    ways = options.ways.split(";")
    if unknown := sorted(set(ways) - WAYS.keys()):
        parser.error(f"no such way: {', '.join(unknown)}; there are {'; '.join(WAYS)}")
    seeds = [int(seed) for seed in options.seeds.split(",")]
    for model, seed, network in itertools.product(
        options.models.split(","), seeds, options.networks.split(",")
    ):
        chosen = ways_of(ways, network, is_first_seed=seed == seeds[0])
        if options.missing and options.append and options.append.exists():
            filled = {run.what for run in load(options.append).runs if run.is_quiet}
            chosen = [way for way in chosen if (model, network, way, seed) not in filled]
        if not chosen:
            continue
        order = Order(
            num_steps=options.steps or NUM_STEPS[model],
            whole_s=options.seconds,
            short_steps=options.short_steps,
            short_s=options.short_seconds,
            peers_python=options.peers_python,
        )
        runs = list(part(order, model, network, chosen, seed))
        if options.append:
            append(options.append, runs)


if __name__ == "__main__":
    main()
