"""One bit for each value on a device: ``codec.sign``'s payload.

The scale may be the float32 next to the one that the host would write, for its sum is added in another order
(``kernels.sign``); the signs are the same bits.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from thinwire.codec.device.base import DeviceCodec, launch

_STRETCH, _TILE = 1 << 14, 1 << 10  # values added by one program, and at a time
_BYTES = 256  # of signs, of a program


class DeviceSign(DeviceCodec):
    """``Sign`` where the values are."""

    def _encode(self, values: Tensor, residual: Tensor | None, payload: Tensor) -> None:
        has_residual = residual is not None
        owed = values if residual is None else residual
        scale, packed = payload[:4].view(torch.float32), payload[4:]
        num_sums = -(-values.numel() // _STRETCH)
        sums = torch.empty(num_sums, dtype=torch.float64, device=values.device)
        launch(
            _kernels().add_magnitudes,
            num_sums,
            values,
            owed,
            sums,
            values.numel(),
            STRETCH=_STRETCH,
            TILE=_TILE,
            HAS_RESIDUAL=has_residual,
        )
        launch(_kernels().take_mean, 1, sums, num_sums, values.numel(), scale, TILE=_TILE)
        launch(
            _kernels().take_signs,
            -(-packed.numel() // _BYTES),
            values,
            owed,
            scale,
            packed,
            values.numel(),
            BYTES=_BYTES,
            HAS_RESIDUAL=has_residual,
        )

    def _decode(self, payload: Tensor, out: Tensor, is_added: bool) -> None:
        launch(
            _kernels().put_signs,
            -(-(payload.numel() - 4) // _BYTES),
            payload[:4].view(torch.float32),
            payload[4:],
            out,
            out.numel(),
            BYTES=_BYTES,
            IS_ADDED=is_added,
        )


@functools.cache
def _kernels() -> Any:
    from thinwire.codec.device.kernels import sign

    return sign
