"""What each codec costs a training in quality, and what it saves in bytes: four ranks in one process, no network.

    python -m benchmarks.codec_training --codecs "plain(); quantize(bits=2); low_rank(low_rank_dim=4)"

How well a model gets does not depend on how fast its gradients travelled, so no time is measured here. Each step, every
rank's gradient goes through what ``direct_coded`` does to it: the contribution is encoded with what the rank owes, the
owner of each shard adds up what it decodes, and encodes the sum with what it owes; or, with low rank, through what
``training.low_rank_sum`` does. Models, batches and learning rates are those of ``benchmarks/autopilot``. What a run
finds takes the place of what was found before for its model, codec and seed, in ``results/codec_training.json``.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from benchmarks.autopilot.models import NUM_STEPS, TASKS, loss_of, quality_of, rate
from thinwire.codec import text
from thinwire.codec.base import Codec, Floats
from thinwire.codec.low_rank import LowRank
from thinwire.planner.forms import is_factored

RESULTS = Path(__file__).parent / "results" / "codec_training.json"
NUM_RANKS = 4
SEGMENT = 32768  # values that are encoded together, about as the runtime does with a bucket of this size


class Outcome(msgspec.Struct, kw_only=True):
    """One training.

    Attributes:
        bits_per_value: of a contribution, on the mean.
        accuracy, loss: on what was kept back, after the last step.
        half_way: accuracy after half of the steps.
    """

    model: str
    codec: str
    seed: int
    num_steps: int
    bits_per_value: float
    accuracy: float
    loss: float
    half_way: float


class CodedSum:
    """The sum of all ranks' gradients, as ``direct_coded`` makes it, with error feedback on both sides."""

    def __init__(self, codec: Codec, num_values: int) -> None:
        self._codec = codec
        self._residuals = np.zeros((NUM_RANKS, num_values), np.float32)
        bounds = np.linspace(0, num_values, NUM_RANKS + 1).astype(int)
        self._segments = [
            (owner, slice(begin, min(begin + SEGMENT, stop)))
            for owner, (start, stop) in enumerate(itertools.pairwise(bounds))
            for begin in range(start, stop, SEGMENT)
        ]
        self._payload = np.empty(codec.payload_bound((SEGMENT,)), np.uint8)
        self.num_bytes = 0

    def __call__(self, gradients: Floats) -> Floats:
        """``gradients`` by rank; returns their sum as all ranks decode it."""
        total = np.empty_like(gradients[0])
        for owner, part in self._segments:
            shard = gradients[owner, part].copy()
            for rank in range(NUM_RANKS):
                if rank != owner:
                    self._codec.add_decoded(self._encoded(gradients[rank, part], rank, part), shard)
            self._codec.decode_into(self._encoded(shard, owner, part), total[part])
        return total

    def _encoded(self, values: Floats, rank: int, part: slice) -> Any:
        residual = self._residuals[rank, part]
        num_bytes = self._codec.encode_with_residual(values, residual, (), 0, self._payload, ())
        self.num_bytes += num_bytes
        return self._payload[:num_bytes]


class FactoredSum:
    """The sum as ``training.low_rank_sum`` makes it, which is that of one rank with the mean of all matrices.

    Factors are of bfloat16 here; there they have eight bits, and what these leave out is owed.
    """

    def __init__(self, low_rank_dim: int, shapes: list[tuple[int, ...]]) -> None:
        generator = np.random.default_rng(0)
        self._dim, self._shapes = low_rank_dim, shapes
        self._residuals = [np.zeros(math.prod(shape), np.float32) for shape in shapes]
        self._bases = [
            generator.standard_normal((math.prod(shape[1:]), low_rank_dim)).astype(np.float32)
            for shape in shapes
        ]
        self.num_bytes = 0

    def __call__(self, gradients: Floats) -> Floats:
        """As ``CodedSum``."""
        total, at = NUM_RANKS * gradients.mean(0), 0
        for index, shape in enumerate(self._shapes):
            part = slice(at, at := at + math.prod(shape))
            if not is_factored(shape, self._dim):
                self.num_bytes += 2 * NUM_RANKS * math.prod(shape)
                continue
            meant = (total[part] / NUM_RANKS + self._residuals[index]).reshape(shape[0], -1)
            left, _ = np.linalg.qr(_rounded(meant @ self._bases[index]))
            self._bases[index] = _rounded(meant.T @ left)
            approximation = (left @ self._bases[index].T).reshape(-1)
            self._residuals[index] = meant.reshape(-1) - approximation
            total[part] = NUM_RANKS * approximation
            self.num_bytes += 2 * NUM_RANKS * self._dim * sum(meant.shape)
        return total


def _rounded(values: Floats) -> Floats:
    rounded: Floats = torch.from_numpy(values).bfloat16().float().numpy()
    return rounded


def summing(codec_name: str, shapes: list[tuple[int, ...]]) -> Any:
    """What makes one gradient of those of all ranks."""
    codec = text.parse(codec_name)
    if isinstance(codec, LowRank):
        return FactoredSum(codec.low_rank_dim, shapes)
    return CodedSum(codec, sum(map(math.prod, shapes)))


def train(model_name: str, codec_name: str, seed: int, num_steps: int) -> Outcome:
    """One training from ``seed``, on the batches that the ranks of ``benchmarks/autopilot`` see."""
    task = TASKS[model_name](seed)
    network, optimizer = task.network, task.optimizer
    parameters = list(network.parameters())
    sizes = [each.numel() for each in parameters]
    make_sum = summing(codec_name, [tuple(each.shape) for each in parameters])
    highest = [group["lr"] for group in optimizer.param_groups]
    generators = [torch.Generator().manual_seed(1000 * seed + rank) for rank in range(NUM_RANKS)]
    gradients, half_way = np.empty((NUM_RANKS, sum(sizes)), np.float32), 0.0
    for step in range(1, num_steps + 1):
        for group, learning_rate in zip(optimizer.param_groups, highest, strict=True):
            group["lr"] = learning_rate * rate(step, num_steps)
        for rank, generator in enumerate(generators):
            optimizer.zero_grad(set_to_none=False)
            loss_of(network, task.batch(generator)).backward()  # type: ignore[no-untyped-call]
            gradients[rank] = np.concatenate([each.grad.numpy().reshape(-1) for each in parameters])
        mean = torch.from_numpy(make_sum(gradients) / NUM_RANKS)
        for each, part in zip(parameters, mean.split(sizes), strict=True):
            each.grad = part.view_as(each)
        optimizer.step()
        if step == num_steps // 2:
            half_way = quality_of(network, task).accuracy
    found = quality_of(network, task)
    return Outcome(
        model=model_name,
        codec=codec_name,
        seed=seed,
        num_steps=num_steps,
        bits_per_value=round(8 * make_sum.num_bytes / NUM_RANKS / num_steps / sum(sizes), 4),
        accuracy=round(found.accuracy, 4),
        loss=round(found.loss, 4),
        half_way=round(half_way, 4),
    )


def keep(found: Outcome) -> None:
    """In the file of results, sorted."""
    known = msgspec.json.decode(RESULTS.read_bytes(), type=list[Outcome]) if RESULTS.exists() else []
    runs = {(each.model, each.codec, each.seed): each for each in [*known, found]}
    ordered = sorted(
        runs.values(), key=lambda each: (each.model, -each.bits_per_value, each.codec, each.seed)
    )
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(ordered)) + b"\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=TASKS, default="images")
    parser.add_argument("--codecs", required=True, help="separated by semicolons; plain() is exact")
    parser.add_argument("--seeds", default="0", help="separated by commas")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for codec_name in options.codecs.split(";"):
        for seed in map(int, options.seeds.split(",")):
            found = train(options.model, codec_name.strip(), seed, NUM_STEPS[options.model])
            keep(found)
            print(
                f"{found.model} {found.codec:35} seed {seed}  {found.bits_per_value:7.3f} bits a value  "
                f"accuracy {found.accuracy:.4f} (half way {found.half_way:.4f})  loss {found.loss:.4f}",
                file=sys.stderr,
                flush=True,
            )


if __name__ == "__main__":
    main()
