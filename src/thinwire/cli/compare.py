"""``thinwire compare``: train one unmodified script over thinwire and over Gloo, and say what the difference was.

The script asks for the backend gloo and prints a line ``step 3/300 loss 2.41`` for each step; that is all it has to do.
The two runs are made one after the other, with the same launcher, so that neither takes the other's cores.

Not here: measuring collectives alone, which ``thinwire bench`` does.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from thinwire.cli.terminal import data, talk
from thinwire.clock import SYSTEM_CLOCK
from thinwire.errors import ThinwireError, UsageError
from thinwire.units import format_bytes, format_seconds

_STEP_LINE = re.compile(r"step (\d+)/(\d+) loss (\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s*")
_LOOPBACK = Path("/sys/class/net/lo/statistics/tx_bytes")


class Training(msgspec.Struct, kw_only=True):
    """What one run showed.

    Attributes:
        times_s: when each step's line came, seconds after the first one.
        losses: the loss on each of these lines.
        sent_bytes: what all ranks sent to each other. Of thinwire, what its links counted, frame headers included; of
            Gloo, what the loopback interface carried meanwhile, TCP's headers and acknowledgements included.
    """

    times_s: list[float] = []
    losses: list[float] = []
    sent_bytes: int = 0

    def time_to_loss_s(self, loss: float) -> float:
        """Seconds from the first step's end to the first step whose loss is not above ``loss``."""
        return next(time_s for time_s, value in zip(self.times_s, self.losses, strict=True) if value <= loss)

    def step_s(self) -> float:
        """The median time from one step's end to the next one's."""
        return statistics.median(
            later - earlier for earlier, later in zip(self.times_s, self.times_s[1:], strict=False)
        )


def compare(
    context: typer.Context,
    ranks: Annotated[int, typer.Option(metavar="N", min=2, help="How many local ranks train.")] = 4,
) -> None:
    """Train SCRIPT over thinwire and over Gloo, and compare.

    The script asks for the backend gloo, and prints `step 3/300 loss 2.41` at the end of each step (on rank 0).
    """
    if not context.args:
        raise UsageError("no script to train: thinwire compare [OPTIONS] SCRIPT [ARGUMENTS]...")
    script = [*context.args]
    if not Path(script[0]).is_file():
        raise UsageError(f"no script at {script[0]}: check the path (now in {Path.cwd()})")
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:>8}"),
        BarColumn(),
        TextColumn("step {task.completed:.0f}/{task.total:.0f}  loss {task.fields[loss]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=talk()) as progress:
        bars = {
            name: progress.add_task(name, start=False, total=0, loss="-") for name in ("thinwire", "gloo")
        }

        def run(name: str, *launch: str) -> Training:
            progress.start_task(bars[name])

            def show(step: int, steps: int, loss: float) -> None:
                progress.update(bars[name], completed=step, total=steps, loss=f"{loss:.3f}")

            training = train([*launch, f"--nproc-per-node={ranks}", *script], show)
            progress.stop_task(bars[name])
            return training

        with tempfile.TemporaryDirectory(prefix="thinwire-compare-") as folder:
            trace = Path(folder) / "trace.json"
            ours = run("thinwire", "--replace", "gloo", "--trace", str(trace))
            ours.sent_bytes = _bytes_of_links(trace)
        carried_before = _loopback_bytes()
        theirs = run("gloo")
        theirs.sent_bytes = _loopback_bytes() - carried_before
    _print_table(ours, theirs)


def train(launch: list[str], show: Callable[[int, int, float], None]) -> Training:
    """Run ``thinwire run`` with the options and the script in ``launch`` to its end, and note every step.

    ``show`` is called at the end of each step, with its number, how many there will be, and the loss.

    Raises:
        ThinwireError: the run failed, or printed fewer than two steps.
    """
    training = Training()
    last_words: deque[str] = deque(maxlen=30)
    command = [sys.executable, "-m", "thinwire", "run", *launch]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            first_s = None
            for line in process.stdout:
                match = _STEP_LINE.fullmatch(line)
                if match is None:
                    last_words.append(line)
                    continue
                now_s = SYSTEM_CLOCK.now_s()
                first_s = now_s if first_s is None else first_s
                training.times_s.append(now_s - first_s)
                training.losses.append(float(match[3]))
                show(int(match[1]), int(match[2]), float(match[3]))
        except BaseException:
            process.terminate()
            raise
    if process.returncode or len(training.losses) < 2:
        talk().print("".join(last_words), markup=False)
        fault = (
            f"ended with status {process.returncode}"
            if process.returncode
            else "printed no `step N/M loss X` lines"
        )
        raise ThinwireError(f"the script {fault}; its last words are above")
    return training


def _bytes_of_links(trace: Path) -> int:
    """What all ranks of a traced run sent to each other."""
    from thinwire.trace import load

    spans = (span for rank in load(trace).ranks for span in rank.spans if span.track == "links")
    return sum(int(span.arguments["bytes_sent"]) for span in spans)


def _loopback_bytes() -> int:
    """What this host's loopback interface has sent; 0 where the kernel does not say."""
    return int(_LOOPBACK.read_text()) if _LOOPBACK.exists() else 0


def _print_table(ours: Training, theirs: Training) -> None:
    from rich.table import Table

    loss = max(ours.losses[-1], theirs.losses[-1])
    table = Table(
        *("", "thinwire", "gloo", "thinwire needs"),
        caption="Bytes sent by all ranks: thinwire's as its links count them, Gloo's as the loopback device does.",
        caption_justify="left",
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for label, get in (
        (f"time to loss {loss:.3f}", lambda run: run.time_to_loss_s(loss)),
        ("time a step", Training.step_s),
    ):
        mine, other = get(ours), get(theirs)
        table.add_row(label, format_seconds(mine), format_seconds(other), f"{mine / other:.2f}x")
    table.add_row("bytes sent", format_bytes(ours.sent_bytes), format_bytes(theirs.sent_bytes), "")
    table.add_row("final loss", f"{ours.losses[-1]:.4f}", f"{theirs.losses[-1]:.4f}", "")
    data().print(table)
