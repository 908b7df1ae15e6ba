"""Train a character-level transformer on Python's own source text, under DistributedDataParallel.

    thinwire run --nproc-per-node 4 --replace gloo examples/train_text.py

An ordinary script for the backend gloo; nothing in it knows of thinwire.
"""

from __future__ import annotations

import argparse
import sysconfig
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

VOCABULARY = 128
CONTEXT = 64


class CharacterTransformer(nn.Module):
    """Logits of the next character, ``[batch, time, VOCABULARY]``, from characters ``[batch, time]``."""

    def __init__(self, width: int, num_layers: int) -> None:
        super().__init__()
        self.characters = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Parameter(torch.zeros(CONTEXT, width))
        layer = nn.TransformerEncoderLayer(
            width, width // 32, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, VOCABULARY)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(CONTEXT))

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        hidden = self.characters(text) + self.positions
        return self.head(self.layers(hidden, mask=self.mask, is_causal=True))


def source_text() -> torch.Tensor:
    """The characters of the standard library's top-level modules, one after the other."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    text = torch.frombuffer(bytearray(b"".join(file.read_bytes() for file in files)), dtype=torch.uint8)
    return text.clamp(max=VOCABULARY - 1).long()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=2, help="sequences a rank and step")
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--layers", type=int, default=4)
    options = parser.parse_args()

    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    model = DistributedDataParallel(CharacterTransformer(options.width, options.layers))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    text, generator = source_text(), torch.Generator().manual_seed(rank)

    losses = []
    for step in range(1, options.steps + 1):
        starts = torch.randint(len(text) - CONTEXT, (options.batch, 1), generator=generator)
        window = text[starts + torch.arange(CONTEXT + 1)]
        logits = model(window[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if rank == 0:
            print(f"step {step}/{options.steps} loss {sum(losses[-20:]) / len(losses[-20:]):.4f}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
