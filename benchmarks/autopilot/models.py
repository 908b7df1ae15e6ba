"""What is trained: two models on real data, with an optimizer and a measure of quality. Needs only torch.

``images`` is the convolutional network of ``examples/train_images.py`` (1.7 million parameters) on Fashion-MNIST,
``text`` the transformer of ``examples/train_text.py``, wider (3.2 million), on the source text of Python's standard
library, of which the last tenth is kept back.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from examples.train_images import FASHION_MNIST, fashion_mnist
from examples.train_text import CONTEXT, CharacterTransformer, source_text

PICTURES, SEQUENCES = 64, 4  # a rank and step
WARM_UP = 0.1  # of all steps
NUM_STEPS = {"images": 400, "text": 300}  # a minute of two cores, so that fading fades and comes back


class Quality(NamedTuple):
    """Of a model on what it was not trained on: share of right answers, and mean cross entropy in nats."""

    accuracy: float
    loss: float


class Task(NamedTuple):
    """A network with its first weights, and what to do with it.

    Attributes:
        optimizer: of its parameters, at its highest learning rate.
        batch: draws a batch of one rank, (inputs, targets).
        kept_back: batches that no rank trains on.
    """

    network: nn.Module
    optimizer: Optimizer
    batch: Callable[[Generator], tuple[Tensor, Tensor]]
    kept_back: Callable[[], list[tuple[Tensor, Tensor]]]


def loss_of(model: Callable[[Tensor], Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
    """The mean cross entropy of a batch; the last axis of the outputs has the classes."""
    inputs, targets = batch
    return cross_entropy(model(inputs).flatten(0, -2), targets.flatten())


def quality_of(network: nn.Module, task: Task) -> Quality:
    """On what was kept back."""
    losses, hits = [], []
    with torch.no_grad():
        for inputs, targets in task.kept_back():
            outputs = network(inputs)
            losses.append(cross_entropy(outputs.flatten(0, -2), targets.flatten()))
            hits.append((outputs.argmax(-1) == targets).float().mean())
    return Quality(float(torch.stack(hits).mean()), float(torch.stack(losses).mean()))


def rate(step: int, num_steps: int) -> float:
    """What part of the highest learning rate a step has, counted from 1: a tenth of all up, half a cosine down to 0."""
    warm_up = max(1, round(WARM_UP * num_steps))
    if step <= warm_up:
        return step / warm_up
    return (1 + math.cos(math.pi * (step - warm_up) / (num_steps - warm_up))) / 2


def images(seed: int) -> Task:
    pictures, labels = fashion_mnist()
    torch.manual_seed(seed)
    network = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64 * 7 * 7, 512), nn.ReLU(), nn.Linear(512, 10)),
    )

    def batch(generator: Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(labels), (PICTURES,), generator=generator)
        return pictures[chosen], labels[chosen]

    def kept_back() -> list[tuple[Tensor, Tensor]]:
        pixels, truth = (
            torch.frombuffer(
                bytearray(gzip.decompress((FASHION_MNIST / f"t10k-{name}-ubyte.gz").read_bytes())[header:]),
                dtype=torch.uint8,
            )
            for name, header in (("images-idx3", 16), ("labels-idx1", 8))
        )
        shown = pixels.view(-1, 1, 28, 28) / 255
        return list(zip(shown.split(1000), truth.long().split(1000), strict=True))

    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    return Task(network, optimizer, batch, kept_back)


def text(seed: int) -> Task:
    characters = source_text()
    shown, kept = characters.split([len(characters) * 9 // 10, len(characters) - len(characters) * 9 // 10])
    torch.manual_seed(seed)
    network = CharacterTransformer(256, 4)

    def windows(source: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
        starts = torch.randint(len(source) - CONTEXT, (count, 1), generator=generator)
        window = source[starts + torch.arange(CONTEXT + 1)]
        return window[:, :-1], window[:, 1:]

    def kept_back() -> list[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        return [windows(kept, 32, generator) for _ in range(16)]

    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, fused=True)
    return Task(network, optimizer, lambda generator: windows(shown, SEQUENCES, generator), kept_back)


TASKS: dict[str, Callable[[int], Task]] = {"images": images, "text": text}
