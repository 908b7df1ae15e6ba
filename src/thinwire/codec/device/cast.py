"""float16 and bfloat16 on a device: ``codec.cast``'s payload, bit for bit. Its 8 bit floats encode on the host."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from thinwire.codec.cast import Cast
from thinwire.codec.device.base import DeviceCodec, launch

_TILE = 1 << 10  # values of a program


class DeviceCast(DeviceCodec):
    """``Cast`` to 16 bits where the values are."""

    codec: Cast

    def _encode(self, values: Tensor, residual: Tensor | None, payload: Tensor) -> None:
        launch(
            _kernels().encode,
            -(-values.numel() // _TILE),
            values,
            values if residual is None else residual,
            payload.view(torch.uint16),
            values.numel(),
            IS_BFLOAT16=self.codec.to == "bfloat16",
            HAS_RESIDUAL=residual is not None,
            TILE=_TILE,
        )

    def _decode(self, payload: Tensor, out: Tensor, is_added: bool) -> None:
        launch(
            _kernels().decode,
            -(-out.numel() // _TILE),
            payload.view(torch.uint16),
            out,
            out.numel(),
            IS_BFLOAT16=self.codec.to == "bfloat16",
            IS_ADDED=is_added,
            TILE=_TILE,
        )


@functools.cache
def _kernels() -> Any:
    from thinwire.codec.device.kernels import floats

    return floats
