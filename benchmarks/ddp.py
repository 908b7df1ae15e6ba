"""How long a step of DistributedDataParallel takes over thinwire and over Gloo: the examples, unmodified, in turn.

    python benchmarks/ddp.py > benchmarks/results/ddp.json

Both runs of a pair have the same launcher, seed and steps; the first steps, in which DDP builds its buckets, do not
count. The ratio is the median over pairs. A step is mostly computing: four ranks share the cores of one machine, and
what a backend leaves of them is what it is judged by. Needs the Debian package dataset-fashion-mnist.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import msgspec

from thinwire.cli.compare import Training, train
from thinwire.cli.measurement import Surroundings

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SCRIPTS = {
    "convolutional network, Fashion-MNIST": "train_images.py",
    "transformer, source text": "train_text.py",
}
NUM_RANKS, PAIRS, STEPS, WARM_UP_STEPS = 4, 5, 80, 10


class StepTimes(msgspec.Struct, frozen=True, kw_only=True):
    """The median time of a step in each run, in the order of the pairs."""

    model: str
    num_ranks: int
    thinwire_s: tuple[float, ...]
    gloo_s: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """What part of Gloo's time thinwire needs: the median over pairs."""
        return statistics.median(a / b for a, b in zip(self.thinwire_s, self.gloo_s, strict=True))


class DdpReport(msgspec.Struct, frozen=True, kw_only=True):
    """All models, and where they were trained."""

    surroundings: Surroundings
    rows: tuple[StepTimes, ...]


def step_s(script: str, *options: str) -> float:
    """The median step of one run, warmed up."""
    launch = [*options, f"--nproc-per-node={NUM_RANKS}", str(EXAMPLES / script), f"--steps={STEPS}"]
    times_s = train(launch, lambda step, steps, loss: None).times_s[WARM_UP_STEPS:]
    return Training(times_s=times_s).step_s()


def measure(model: str, script: str) -> StepTimes:
    """Both backends, in turn."""
    pairs = []
    for pair in range(1, PAIRS + 1):
        pairs.append((step_s(script, "--replace", "gloo"), step_s(script)))
        print(f"{model}: pair {pair}/{PAIRS}: {pairs[-1][0] / pairs[-1][1]:.2f}x", file=sys.stderr)
    ours, theirs = zip(*pairs, strict=True)
    return StepTimes(model=model, num_ranks=NUM_RANKS, thinwire_s=ours, gloo_s=theirs)


if __name__ == "__main__":
    rows = tuple(measure(model, script) for model, script in SCRIPTS.items())
    sys.stdout.buffer.write(
        msgspec.json.format(
            msgspec.json.encode(DdpReport(surroundings=Surroundings.of_this_machine(), rows=rows)), indent=1
        )
    )
