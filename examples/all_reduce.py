"""The smallest program: every rank adds its number, every rank gets the sum.

thinwire run --nproc-per-node 4 examples/all_reduce.py
"""

from __future__ import annotations

import torch
import torch.distributed as dist


def main() -> None:
    dist.init_process_group("thinwire")
    rank, world_size = dist.get_rank(), dist.get_world_size()

    numbers = torch.full((1000,), float(rank + 1))
    dist.all_reduce(numbers)
    assert torch.all(numbers == world_size * (world_size + 1) / 2)

    if rank == 0:
        print(f"{world_size} ranks agree on {numbers[0].item():g}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
