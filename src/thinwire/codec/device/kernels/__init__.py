"""The loops of the device forms, in Triton: a module here imports only where Triton is installed.

Each says with its twin in ``thinwire.codec.kernels`` what it does and in which order it adds. Types are spelled out,
and the launch forbids fused multiply-adds, so that floats round as they do there. Parameters of a kernel have no
annotations but ``constexpr``, which Triton reads.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import triton


def kernel(function: Callable[..., None]) -> Any:
    """A kernel that is compiled once for its constants, whatever the sizes and wherever a segment begins.

    Compiled anew for a size of 1 or an address that is a multiple of 16, it would be so in the middle of a call.
    """
    given = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.annotation is inspect.Parameter.empty
    ]
    return triton.jit(do_not_specialize=given, do_not_specialize_on_alignment=given)(function)
