"""Train a small network sharded by FSDP2, its gradients in few bits and its parameters in half as many.

thinwire run --nproc-per-node 4 examples/train_fsdp.py
thinwire lab run office-100m -- python examples/train_fsdp.py --fidelity auto
"""

from __future__ import annotations

import argparse

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

import thinwire


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--fidelity", default="quantize(bits=4)", help="of gradients; or auto, or exact")
    parser.add_argument("--parameters", default="cast(to=bfloat16)", help="how they are gathered; or exact")
    options = parser.parse_args()

    dist.init_process_group("thinwire")
    rank = dist.get_rank()
    torch.manual_seed(0)
    teacher = nn.Linear(64, 64)
    model = nn.Sequential(
        *(nn.Linear(64, options.width), nn.ReLU()),
        *(nn.Linear(options.width, options.width), nn.ReLU()),
        nn.Linear(options.width, 64),
    )
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer)
    fully_shard(model)
    link = thinwire.attach(model, options.fidelity, parameters=options.parameters)
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
