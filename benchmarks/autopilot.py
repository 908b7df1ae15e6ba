"""Step time and quality of data-parallel training in the lab's networks: the autopilot beside DDP over Gloo.

    python benchmarks/autopilot.py --model images --network office-100m > benchmarks/results/autopilot_images_100m.json
    python benchmarks/autopilot.py --plot loss.png benchmarks/results/autopilot_*.json

Each way trains the same model from the same seed on the same batches, four ranks, for ``--seconds`` or ``--steps``,
whichever ends first. "Infinite" is the exact job over links without a limit, in the same run. Step times are medians of
the second half of the steps. Quality is that of the model after the last step: accuracy on the test
pictures, or loss on text that was kept back. Ways that made different numbers of steps are compared on time only.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import io
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

NETWORKS = ("unlimited", "lan-1g", "office-100m", "ten-megabit", "fading")
WAYS = ("thinwire auto", "thinwire exact", "thinwire wrapper", "gloo", "gloo fp16")
UNLIMITED = 'summary = "Four machines, links without a limit"\nhosts = 4\n'


class Run(msgspec.Struct, kw_only=True):
    """One way in one network, as rank 0 saw it. ``curve`` has (seconds, bytes sent, loss)."""

    model: str
    network: str
    way: str
    seed: int
    num_steps: int
    step_s: float
    mean_step_s: float
    quality: float
    curve: list[tuple[float, int, float]]
    plans: list[str]


def images(seed: int) -> tuple[Any, Any, Any]:
    """The network of examples/train_images.py: (model, loss of a batch, quality of a model)."""
    import torch
    from torch import nn

    from examples.train_images import FASHION_MNIST, fashion_mnist

    pictures, labels = fashion_mnist()
    torch.manual_seed(seed)
    network = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64 * 7 * 7, 512), nn.ReLU(), nn.Linear(512, 10)),
    )

    def loss(model: Any, generator: Any) -> Any:
        batch = torch.randint(len(labels), (64,), generator=generator)
        return nn.functional.cross_entropy(model(pictures[batch]), labels[batch])

    def accuracy(model: Any) -> float:
        read = [
            gzip.decompress((FASHION_MNIST / f"t10k-{name}-ubyte.gz").read_bytes())
            for name in ("images-idx3", "labels-idx1")
        ]
        shown = torch.frombuffer(bytearray(read[0][16:]), dtype=torch.uint8).view(-1, 1, 28, 28) / 255
        truth = torch.frombuffer(bytearray(read[1][8:]), dtype=torch.uint8)
        with torch.no_grad():
            found = torch.cat([model(part).argmax(1) for part in shown.split(1000)])
        return float((found == truth).float().mean())

    return network, loss, accuracy


def text(seed: int) -> tuple[Any, Any, Any]:
    """The transformer of examples/train_text.py; quality is the loss on the last tenth of the text."""
    import torch
    from torch import nn

    from examples.train_text import CONTEXT, CharacterTransformer, source_text

    everything = source_text()
    kept_back = everything[len(everything) * 9 // 10 :]
    shown = everything[: len(everything) * 9 // 10]
    torch.manual_seed(seed)
    network = CharacterTransformer(192, 4)

    def loss_on(model: Any, source: Any, starts: Any) -> Any:
        window = source[starts + torch.arange(CONTEXT + 1)]
        return nn.functional.cross_entropy(model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten())

    def loss(model: Any, generator: Any) -> Any:
        return loss_on(model, shown, torch.randint(len(shown) - CONTEXT, (2, 1), generator=generator))

    def kept_back_loss(model: Any) -> float:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            parts = [
                loss_on(
                    model, kept_back, torch.randint(len(kept_back) - CONTEXT, (32, 1), generator=generator)
                )
                for _ in range(8)
            ]
        return float(torch.stack(parts).mean())

    return network, loss, kept_back_loss


MODELS = {"images": images, "text": text}


def worker(options: argparse.Namespace) -> None:
    """One rank. Rank 0 prints a Run."""
    import torch
    import torch.distributed as dist
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
    from torch.nn.parallel import DistributedDataParallel

    import thinwire

    torch.set_num_threads(1)
    dist.init_process_group("gloo" if options.way.startswith("gloo") else "thinwire")
    network, loss_of, quality_of = MODELS[options.model](options.seed)
    model: Any = (thinwire.DataParallel if options.way == "thinwire wrapper" else DistributedDataParallel)(
        network
    )
    if options.model == "images":
        optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    link = None
    if options.way in ("thinwire auto", "thinwire exact"):
        link = thinwire.attach(model, options.way.split()[1], quiet=True)
    elif options.way == "gloo fp16":
        model.register_comm_hook(None, default_hooks.fp16_compress_hook)
    elif options.way == "thinwire wrapper":
        model.overlap(optimizer)
    generator = torch.Generator().manual_seed(1000 * options.seed + dist.get_rank())
    exact_bytes = sum(each.numel() for each in network.parameters()) * 4 * 2 * (dist.get_world_size() - 1)
    exact_bytes //= dist.get_world_size()
    times, curve, is_over = [], [], torch.zeros(1)
    dist.barrier()
    begun_s = before_s = time.monotonic()
    for step in range(options.steps):
        loss = loss_of(model, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        now_s = time.monotonic()
        times.append(now_s - before_s)
        before_s = now_s
        sent = sum(count for _, count in link.report().sent.values()) if link else exact_bytes * (step + 1)
        curve.append((now_s - begun_s, sent, loss.item()))
        if link is not None:
            link.observe_loss(loss.item())
        if step % 10 == 9:
            is_over.fill_(now_s - begun_s > options.seconds)
            dist.broadcast(is_over, 0)
            if is_over:
                break
            before_s = time.monotonic()
    if options.way == "thinwire wrapper":
        model.synchronize()
    late = times[len(times) // 2 :]
    quality = quality_of(model.module) if dist.get_rank() == 0 else 0.0
    if dist.get_rank() == 0:
        plans = [f"step {each.step}: {each.plan.reason}" for each in link.report().switches] if link else []
        every = max(1, len(curve) // 100)
        run = Run(
            model=options.model,
            network=options.network,
            way=options.way,
            seed=options.seed,
            num_steps=len(times),
            step_s=statistics.median(late),
            mean_step_s=sum(times) / len(times),
            quality=quality,
            curve=curve[every - 1 :: every],
            plans=plans,
        )
        print(msgspec.json.encode(run).decode(), flush=True)
    dist.destroy_process_group()


def measure(options: argparse.Namespace, network: str, way: str) -> Run:
    """One way in a lab of its own, so that a changing network is at its beginning."""
    from thinwire.lab import Lab, run_everywhere

    heard, complaints = io.StringIO(), io.StringIO()
    command = [
        sys.executable,
        __file__,
        "--worker",
        "--way",
        way,
        "--network",
        network,
        "--model",
        options.model,
    ]
    command += ["--steps", str(options.steps), "--seconds", str(options.seconds), "--seed", str(options.seed)]
    with tempfile.TemporaryDirectory() as folder:
        unlimited = Path(folder) / "unlimited.toml"
        unlimited.write_text(UNLIMITED)
        with Lab(str(unlimited) if network == "unlimited" else network) as lab:
            environment = {"PYTHONPATH": f"{Path(__file__).parents[1]}:{Path(__file__).parents[1] / 'src'}"}
            statuses = run_everywhere(lab.record, command, env=environment, stdout=heard, stderr=complaints)
    if any(statuses.values()):
        raise SystemExit(f"{network}, {way}: a rank failed: {statuses}\n{complaints.getvalue()}")
    lines = [line.split("| ", 1)[1] for line in heard.getvalue().splitlines() if "| {" in line]
    return msgspec.json.decode(lines[0], type=Run)


def plot(target: Path, results: list[Path]) -> None:
    """Loss against seconds and against bytes."""
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(1, 2, figsize=(12, 4.5), sharey=True)
    for path in results:
        for run in msgspec.json.decode(path.read_bytes(), type=list[Run]):
            smooth = [
                statistics.mean(loss for _, _, loss in run.curve[max(0, i - 9) : i + 1])
                for i in range(len(run.curve))
            ]
            label = f"{run.network}, {run.way}"
            axes[0].plot([seconds for seconds, _, _ in run.curve], smooth, label=label)
            axes[1].plot([sent / 1e6 for _, sent, _ in run.curve], smooth, label=label)
    axes[0].set(xlabel="seconds", ylabel="training loss", xscale="log")
    axes[1].set(xlabel="MB sent by a rank", xscale="log")
    axes[1].legend(fontsize=7)
    plt.savefig(target, dpi=120, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="*", type=Path, help="with --plot")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--model", choices=MODELS, default="images")
    parser.add_argument("--network", default="office-100m", help=f"one of {', '.join(NETWORKS)}")
    parser.add_argument("--ways", default="thinwire auto,gloo", help=f"of {', '.join(WAYS)}")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plot:
        plot(options.plot, options.results)
    elif options.worker:
        worker(options)
    else:
        runs = [measure(options, "unlimited", "thinwire exact")]
        for way in options.ways.split(","):
            runs.append(measure(options, options.network, way))
        say = functools.partial(print, file=sys.stderr)
        for run in runs:
            ratio = run.step_s / runs[0].step_s
            say(
                f"{run.network:12} {run.way:17} {run.step_s * 1e3:8.1f} ms a step ({ratio:.2f}x), "
                f"{run.num_steps} steps, quality {run.quality:.4f}"
            )
            for plan in run.plans:
                say(f"    {plan}")
        print(msgspec.json.format(msgspec.json.encode(runs)).decode())


if __name__ == "__main__":
    main()
