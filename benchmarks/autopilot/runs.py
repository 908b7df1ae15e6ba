"""What was measured, as data, and the file that keeps it. Not here: measuring, and showing."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.autopilot.models import Quality
from thinwire.cli.measurement import Surroundings

RESULTS = Path(__file__).resolve().parents[1] / "results" / "autopilot.json"
QUIET = 0.1  # of the cores taken by others, at most
FIRST_STEPS = 5  # in which DistributedDataParallel builds its buckets; no mean counts them


class StepTime(NamedTuple):
    """Of one run: the median of the second half of its steps, and the mean of all but the first five."""

    median_s: float
    mean_s: float


class PlanBegun(msgspec.Struct, frozen=True, kw_only=True):
    """From ``step`` on, counted from 1, the i-th bucket travels as ``forms[min(i, last)]``."""

    step: int
    forms: tuple[str, ...]
    reason: str


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One way in one network, as rank 0 saw it.

    Attributes:
        num_steps: of the whole training. A run of fewer tells step times only.
        began_s: when the first step began, in seconds since the lab was up.
        ends_s, sent_bytes, losses: for each step: when it ended, since the first began; what this rank's interface sent
            since then, headers included; the loss of this rank's batch.
        quality: after the last step of a whole training.
        plans, sent_as: of the autopilot; bytes by form.
        infinite: the same model, exact and over links without a limit, measured before and after in the same go.
        disturbed: what part of the cores other programs took, in this run or in those of infinite, whichever was worse.
        failure: why there is nothing else to tell; empty if there is.
    """

    model: str
    network: str
    way: str
    seed: int
    num_steps: int
    began_s: float = 0.0
    ends_s: tuple[float, ...] = ()
    sent_bytes: tuple[int, ...] = ()
    losses: tuple[float, ...] = ()
    quality: Quality | None = None
    plans: tuple[PlanBegun, ...] = ()
    sent_as: dict[str, int] = {}
    infinite: tuple[StepTime, ...] = ()
    disturbed: float = 0.0
    failure: str = ""

    @property
    def what(self) -> tuple[str, str, str, int]:
        """Which cell of the matrix it fills."""
        return self.model, self.network, self.way, self.seed

    @property
    def is_quiet(self) -> bool:
        """Whether its times are worth keeping."""
        return self.disturbed <= QUIET

    def step_time(self) -> StepTime:
        """Of a run that did not fail."""
        steps_s = [end - start for start, end in zip((0.0, *self.ends_s), self.ends_s, strict=False)]
        warm = steps_s[min(FIRST_STEPS, len(steps_s) // 2) :]
        return StepTime(statistics.median(steps_s[len(steps_s) // 2 :]), statistics.mean(warm))

    def against_infinite(self) -> StepTime:
        """Ratios: median to median, mean to mean."""
        own = self.step_time()
        base = [statistics.mean(column) for column in zip(*self.infinite, strict=True)]
        return StepTime(own.median_s / base[0], own.mean_s / base[1])

    def bytes_a_step(self) -> float:
        """Sent by this rank, on the mean, after the first steps."""
        skipped = min(FIRST_STEPS, len(self.ends_s) // 2)
        before = self.sent_bytes[skipped - 1] if skipped else 0
        return (self.sent_bytes[-1] - before) / (len(self.sent_bytes) - skipped)


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """All runs, and where the last of them was made."""

    surroundings: Surroundings
    runs: tuple[Run, ...] = ()


def load(path: Path = RESULTS) -> Results:
    """What a file keeps."""
    return msgspec.json.decode(path.read_bytes(), type=Results)


def append(path: Path, new: Sequence[Run]) -> None:
    """Put runs into a file, in place of those that filled the same cells."""
    replaced = {run.what for run in new}
    kept = [run for run in load(path).runs if run.what not in replaced] if path.exists() else []
    runs = sorted([*kept, *new], key=lambda run: run.what)
    lines = b",\n".join(msgspec.json.encode(run) for run in runs)
    surroundings = msgspec.json.encode(Surroundings.of_this_machine())
    path.write_bytes(b'{"surroundings":%b,"runs":[\n%b\n]}\n' % (surroundings, lines))
