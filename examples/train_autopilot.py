"""Train a small network whose gradients travel in the form that hides behind the compute, and see what was chosen.

    thinwire run --nproc-per-node 4 examples/train_autopilot.py
    thinwire lab run office-100m -- python examples/train_autopilot.py

On one machine there is no wire to hide, and gradients stay exact; in an emulated network of 100 Mbit/s they do not.
"""

from __future__ import annotations

import argparse

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import thinwire


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument(
        "--fidelity", default="auto", help='"auto", "exact", or a codec such as "quantize(bits=4)"'
    )
    options = parser.parse_args()

    dist.init_process_group("thinwire")
    rank = dist.get_rank()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, options.width), nn.ReLU(), nn.Linear(options.width, options.width))
    teacher = nn.Linear(64, options.width)
    model = DistributedDataParallel(network)
    link = thinwire.attach(model, options.fidelity)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    generator = torch.Generator().manual_seed(rank)
    for step in range(1, options.steps + 1):
        inputs = torch.randn(64, 64, generator=generator)
        loss = nn.functional.mse_loss(model(inputs), torch.tanh(teacher(inputs)).detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        link.observe_loss(loss.item())
        if rank == 0 and step % 10 == 0:
            print(f"step {step}/{options.steps} loss {loss.item():.4f}", flush=True)
    link.close()
    if rank == 0:
        print(link.report())
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
