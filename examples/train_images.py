"""Train a small convolutional network on pictures, under DistributedDataParallel.

    thinwire run --nproc-per-node 4 --replace gloo examples/train_images.py --data fashion-mnist

The pictures come from the Debian package dataset-fashion-mnist, or from scikit-learn (--data digits). An ordinary
script for the backend gloo; nothing in it knows of thinwire.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def fashion_mnist() -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures ``[60000, 1, 28, 28]`` from 0 to 1, and labels ``[60000]``."""
    if not FASHION_MNIST.is_dir():
        raise SystemExit(
            f"no {FASHION_MNIST}: install the Debian package dataset-fashion-mnist, or use --data digits"
        )
    pictures = gzip.decompress((FASHION_MNIST / "train-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((FASHION_MNIST / "train-labels-idx1-ubyte.gz").read_bytes())[8:]
    pixels = torch.frombuffer(bytearray(pictures), dtype=torch.uint8).view(-1, 1, 28, 28)
    return pixels / 255, torch.frombuffer(bytearray(labels), dtype=torch.uint8).long()


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures ``[1797, 1, 28, 28]`` from 0 to 1, and labels ``[1797]``."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise SystemExit("--data digits needs scikit-learn: pip install scikit-learn") from None
    data = load_digits()
    pixels = torch.from_numpy(data.images).float().unsqueeze(1) / 16
    return nn.functional.interpolate(pixels, size=28), torch.from_numpy(data.target).long()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=["fashion-mnist", "digits"], default="fashion-mnist")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=64, help="pictures a rank and step")
    options = parser.parse_args()
    pictures, labels = digits() if options.data == "digits" else fashion_mnist()

    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64 * 7 * 7, 512), nn.ReLU(), nn.Linear(512, 10)),
    )
    model = DistributedDataParallel(network)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(rank)
    losses = []
    for step in range(1, options.steps + 1):
        batch = torch.randint(len(labels), (options.batch,), generator=generator)
        loss = nn.functional.cross_entropy(model(pictures[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if rank == 0:
            print(f"step {step}/{options.steps} loss {sum(losses[-20:]) / len(losses[-20:]):.4f}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
