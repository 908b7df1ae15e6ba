"""Compile what the device forms launch for a GPU that need not be there, and print a line of findings for each.

A process of its own, because Triton decides when it is imported whether it interprets. What only its interpreter
accepts fails here; the findings are instructions that round otherwise than the twins do.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from thinwire.codec.device import base, cast, quantize, sign
from thinwire.codec.text import parse

TARGET = GPUTarget("cuda", 80, 32)
NAMES = {"float32": "*fp32", "float64": "*fp64", "int32": "*i32", "uint8": "*u8", "uint16": "*u16"}
FORBIDDEN = {"fused": r"fma\.rn\.f32", "approximate": r"\.approx|div\.full", "flushes subnormals": r"\.ftz"}


def compiled(kernel: Any, _: int, *arguments: object, num_warps: int = 4, **constants: object) -> None:
    """Takes the place of ``launch``."""
    values = [
        NAMES[str(argument.dtype).removeprefix("torch.")] if isinstance(argument, torch.Tensor) else "i32"
        for argument in arguments
    ]
    names = [name for name in kernel.arg_names if name not in constants]
    signature = dict(zip(names, values, strict=True)) | dict.fromkeys(constants, "constexpr")
    source = ASTSource(kernel, {name: signature[name] for name in kernel.arg_names}, constants)
    options = {"num_warps": num_warps, "enable_fp_fusion": False}
    ptx = triton.compile(source, target=TARGET, options=options).asm["ptx"]
    found = [what for what, pattern in FORBIDDEN.items() if re.search(pattern, ptx)]
    sys.stdout.write(f"{kernel.__name__} {constants}: {', '.join(found) or 'good'}\n")


if __name__ == "__main__":
    for module in (quantize, sign, cast):
        module.launch = compiled  # type: ignore[attr-defined]
    for text in sys.argv[1:]:
        form = base.device_form(parse(text))
        assert form is not None, text
        values = torch.zeros(700)
        payload = torch.zeros(form.payload_bytes(700), dtype=torch.uint8)
        form.encode_with_residual(values, torch.zeros(700), payload)
        form.add_decoded(payload, values)
