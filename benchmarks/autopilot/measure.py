"""Runs ways in labs, one after the other, and says how it goes. Not here: what a run is made of (``worker``)."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from benchmarks.autopilot.disturbance import Disturbance
from benchmarks.autopilot.peers import MODULES
from benchmarks.autopilot.runs import Run
from thinwire.lab import Lab, Scenario, run_everywhere

ROOT = Path(__file__).resolve().parents[2]
UNLIMITED = Scenario(summary="Four machines, links without a limit", hosts=4)
ONE_HOST = Scenario(summary="One machine, whose ranks are its processes", hosts=1)
MADE_HERE = {"loopback": ONE_HOST, "unlimited": UNLIMITED}
NETWORKS = ("loopback", "unlimited", "lan-1g", "office-100m", "ten-megabit", "fading")
WORKER = "benchmarks.autopilot.worker"
ADAPTIVE, EXACT = "thinwire auto", "thinwire exact"
NEVER_WHOLE = (
    "thinwire.DataParallel",
    "Gloo",
    "hivemind",
)  # the quality of two is that of EXACT; one is too slow
BETWEEN_INFINITES = 3  # ways


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """How long to train.

    Attributes:
        num_steps: of a whole training, which ends after ``whole_s`` seconds even so.
        short_steps, short_s: of a run that is only to tell the step time.
        peers_python: the interpreter that has torchft and hivemind.
    """

    num_steps: int
    whole_s: float = 180.0
    short_steps: int = 40
    short_s: float = 25.0
    peers_python: str = sys.executable
    num_ranks: int = 4


def exact_in(network: str) -> str:
    """The network without a limit whose exact training a network is held against: its ranks have as many hosts."""
    return network if network == "loopback" else "unlimited"


def is_whole(way: str, network: str) -> bool:
    """Whether a way is trained to the end there: where its quality is not known from elsewhere.

    What a way computes depends on the network only if it adapts. The others are trained to the end over unlimited
    links, and of those that are exact only one. Meeting costs hivemind seconds a step in any network. Within one host
    sums are added up in another order, so what is exact there is trained there too.
    """
    if network == "loopback":
        return way in (ADAPTIVE, EXACT)
    return way == ADAPTIVE or (network == "unlimited" and way not in NEVER_WHOLE)


def ways_of(ways: Sequence[str], network: str, *, is_first_seed: bool) -> list[str]:
    """Those that have something to tell there: more seeds tell the spread of quality; hivemind is slow anywhere."""
    if network == "loopback" and not is_first_seed:
        return []
    if is_first_seed:
        return [way for way in ways if way != "hivemind" or network == "unlimited"]
    return [way for way in ways if way in (ADAPTIVE, EXACT) and is_whole(way, network)]


def part(order: Order, model: str, network: str, ways: Sequence[str], seed: int) -> Iterator[Run]:
    """These ways in turn, with infinite before, between and after them: within the host, if they are."""
    infinite: list[Run] = []
    runs: list[Run] = []

    def measure_infinite() -> None:
        run = one(order, model, exact_in(network), EXACT, seed, is_short=True)
        if run.failure:
            raise SystemExit(run.failure)
        infinite.append(run)

    for index, way in enumerate(ways):
        if index % BETWEEN_INFINITES == 0:
            measure_infinite()
        runs.append(one(order, model, network, way, seed, is_short=not is_whole(way, network)))
    measure_infinite()
    times = tuple(run.step_time() for run in infinite)
    disturbed = max(run.disturbed for run in infinite)
    for run in runs:
        yield msgspec.structs.replace(run, infinite=times, disturbed=max(run.disturbed, disturbed))


def one(order: Order, model: str, network: str, way: str, seed: int, *, is_short: bool) -> Run:
    """One way in a lab of its own, so that a network that changes is at its beginning."""
    python = order.peers_python if way in MODULES else sys.executable
    if way in MODULES and (missing := _why_missing(python, MODULES[way])):
        return Run(
            model=model, network=network, way=way, seed=seed, num_steps=order.num_steps, failure=missing
        )
    asked = {"model": model, "way": way, "seed": seed, "num_steps": order.num_steps}
    asked["steps"] = min(order.short_steps, order.num_steps) if is_short else order.num_steps
    asked["seconds"] = order.short_s if is_short else order.whole_s
    disturbance = Disturbance()
    heard = Listener(f"{model}, {network}, {way}, seed {seed}")
    scenario = MADE_HERE.get(network, network)
    with Lab(scenario, num_hosts=1 if scenario is ONE_HOST else order.num_ranks) as lab:
        asked["lab_began_s"] = time.monotonic()
        launch = ["-m", "torch.distributed.run", f"--nproc-per-node={order.num_ranks}"]
        command = [python, *(launch if scenario is ONE_HOST else ()), "-m", WORKER, json.dumps(asked)]
        environment = {"PYTHONPATH": str(ROOT)}
        statuses = run_everywhere(lab.record, command, env=environment, stdout=heard, stderr=heard.complaints)
    failure = "" if heard.answer else heard.why_failed(statuses)
    found = {} if failure else json.loads(heard.answer)
    run = msgspec.convert(
        {"model": model, "network": network, "way": way, "seed": seed, "num_steps": order.num_steps}
        | {"failure": failure, "disturbed": round(disturbance.share(), 4)}
        | found,
        type=Run,
    )
    heard.close_line(_told(run))
    return run


def _told(run: Run) -> str:
    if run.failure:
        return run.failure
    step = run.step_time()
    quality = f", accuracy {run.quality.accuracy:.2%}, loss {run.quality.loss:.4f}" if run.quality else ""
    plans = "".join(f"\n    step {each.step}: {each.reason}" for each in run.plans if run.way == ADAPTIVE)
    return (
        f"{len(run.losses)} steps, median {step.median_s * 1e3:.1f} ms, mean {step.mean_s * 1e3:.1f} ms, "
        f"{run.bytes_a_step() / 1e6:.3f} MB a step, "
        f"{run.disturbed:.0%} of the cores taken by others{quality}{plans}"
    )


def _why_missing(python: str, module: str) -> str:
    try:
        subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return f"not installed: {python} has no {module}; benchmarks/autopilot/peers.py says how to get it"
    return ""


class Listener(io.StringIO):
    """Takes what the ranks print: shows how far rank 0 is, in one line, and keeps its answer."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.answer = ""
        self.complaints = io.StringIO()
        self._title = title
        self._show("starting")

    def write(self, line: str) -> int:
        said = line.split("| ", 1)[-1].rstrip()
        if said.startswith("step "):
            self._show(said)
        elif said.startswith('{"began_s"'):
            self.answer = said
        return len(line)

    def close_line(self, result: str) -> None:
        """Leave the result behind."""
        self._show(result)
        if sys.stderr.isatty():
            print(file=sys.stderr)

    def why_failed(self, statuses: Mapping[str, int]) -> str:
        """The last thing that a rank complained of, or where it hung."""
        lines = [
            re.sub(r"^\w+ *\| (\[rank\d+\]: )?", "", line).rstrip()
            for line in self.complaints.getvalue().splitlines()
        ]
        if any(line.startswith("Timeout (") for line in lines):
            first = next((line.strip() for line in lines if line.lstrip().startswith("File")), "")
            return f"hangs: {first}"
        told = [line for line in lines if line and not line[0].isspace()]
        errors = [line for line in told if re.match(r"[\w.]*(Error|Exception)\b", line)]
        return f"fails: {(errors or told or [f'exit statuses {statuses}'])[-1]}"[:300]

    def _show(self, text: str) -> None:
        start, end = ("\r\x1b[K", "") if sys.stderr.isatty() else ("", "\n")
        print(f"{start}{self._title}: {text}", end=end, file=sys.stderr, flush=True)
