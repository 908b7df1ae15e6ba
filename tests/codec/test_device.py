"""Codecs on a device against their twins: on a GPU if there is one, else in Triton's interpreter, on CPU tensors."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import device_codecs
from thinwire.codec.base import Codec, Floats
from thinwire.codec.device.base import DeviceCodec, device_form
from thinwire.codec.text import parse
from thinwire.errors import CodecError, UsageError

pytest.importorskip("triton", reason="Triton is not installed")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
COMPILER = Path(__file__).with_name("compile_device_kernels.py")
FORMS = (
    *(f"quantize(bits={bits})" for bits in (1, 2, 4, 8)),
    "quantize(bits=2, levels=uniform, block=40)",
    "quantize(bits=4, scale=unbiased, block=512)",
    "cast(to=float16)",
    "cast(to=bfloat16)",
    "sign",
)
BLOCK = 256


def form_of(codec: Codec) -> DeviceCodec:
    form = device_form(codec)
    assert form is not None
    return form


def hard_values() -> Floats:
    """Blocks that each have a way of their own through the kernels, and a last one that is not full."""
    random = np.random.default_rng(0)
    normal = random.standard_normal((10, BLOCK)).astype(np.float32)
    normal[1] *= np.float32(1e-40)  # subnormal
    normal[2] *= np.float32(1e-28)  # its squares are not
    normal[3] = np.clip(normal[3], -3, 3) * np.float32(1e38)
    normal[4] = 0
    normal[5, 7] = np.nan
    normal[6, 200] = -np.inf
    normal[7] *= np.exp(3 * normal[8])
    normal[9] = -0.0
    return np.concatenate([normal.reshape(-1), random.standard_normal(37).astype(np.float32)])


def finite_values() -> Floats:
    values = hard_values()
    values[~np.isfinite(values) | (np.abs(values) > 1e30)] = 3.0
    return values


TENSORS = {
    "hard": hard_values(),
    "finite": finite_values(),
    "one": np.array([-1.5], np.float32),
    "seven": np.arange(-3, 4, dtype=np.float32),
}


def on_device(array: Floats) -> torch.Tensor:
    return torch.from_numpy(array.copy()).to(DEVICE)


def bits_of(tensor: torch.Tensor) -> np.ndarray:
    """With all NaNs made one, because which of them a sum gives is the processor's to say."""
    values = tensor.cpu().numpy()
    return np.where(np.isnan(values), np.float32(np.nan), values).view(np.uint32)


@pytest.mark.parametrize("what", TENSORS)
@pytest.mark.parametrize("text", FORMS)
def test_payloads_residuals_and_sums_are_the_twins(text: str, what: str) -> None:
    codec, values = parse(text), TENSORS[what]
    form, size = form_of(codec), values.size
    owed = np.ascontiguousarray(values[::-1] / np.float32(3))
    owed[~np.isfinite(owed)] = 1
    with np.errstate(all="ignore"):
        payload, residual = np.empty(codec.payload_bound((size,)), np.uint8), owed.copy()
        codec.encode_with_residual(values, residual, (), 0, payload, ())
        found, found_residual = torch.empty(payload.size, dtype=torch.uint8, device=DEVICE), on_device(owed)
        form.encode_with_residual(on_device(values), found_residual, found)
        if text == "sign" and what != "seven":  # its scale may be the next float32
            expected, scale = (each[:4].copy().view(np.float32) for each in (payload, found.cpu().numpy()))
            np.testing.assert_array_max_ulp(np.nan_to_num(scale), np.nan_to_num(expected), maxulp=1)
            found[:4] = torch.from_numpy(payload[:4].copy())
            np.testing.assert_allclose(found_residual.cpu().numpy(), residual, rtol=1e-5)
        else:
            np.testing.assert_array_equal(bits_of(found_residual), bits_of(torch.from_numpy(residual)))
        assert found.cpu().numpy().tobytes() == payload.tobytes()

        sums, decoded = np.linspace(-1, 1, size, dtype=np.float32), np.empty(size, np.float32)
        found_sums, found_decoded = on_device(sums), torch.full((size,), 7.0, device=DEVICE)
        codec.add_decoded(payload, sums)
        codec.decode_into(payload, decoded)
        form.add_decoded(found, found_sums)
        form.decode_into(found, found_decoded)
    np.testing.assert_array_equal(bits_of(found_sums), bits_of(torch.from_numpy(sums)))
    np.testing.assert_array_equal(bits_of(found_decoded), bits_of(torch.from_numpy(decoded)))


@pytest.mark.parametrize("text", FORMS)
def test_without_a_residual_and_of_nothing(text: str) -> None:
    codec, values = parse(text), finite_values()[:700]
    form = form_of(codec)
    found = torch.empty(form.payload_bytes(700), dtype=torch.uint8, device=DEVICE)
    form.encode_into(on_device(values), found)
    start = 4 if text == "sign" else 0
    assert found.cpu().numpy()[start:].tobytes() == codec.encode(values).payload[start:].tobytes()
    nothing = torch.empty(0, device=DEVICE)
    payload = torch.empty(form.payload_bytes(0), dtype=torch.uint8, device=DEVICE)
    form.encode_into(nothing, payload)
    assert payload.cpu().numpy().tobytes() == codec.encode(np.empty(0, np.float32)).payload.tobytes()
    form.add_decoded(payload, nothing)


def test_what_has_no_device_form() -> None:
    for text in ("quantize(bits=3)", "quantize(bits=4, rounding=stochastic)", "cast(to=float8_e4m3)"):
        assert device_form(parse(text)) is None
    assert device_form(parse("quantize(bits=8, levels=lloyd_max)")) is None
    assert device_form(parse("error_feedback(quantize(bits=4))")) is None


def test_tensors_of_another_kind_are_refused() -> None:
    form = form_of(parse("quantize(bits=4)"))
    payload = torch.empty(form.payload_bytes(8), dtype=torch.uint8)
    with pytest.raises(UsageError, match=r"takes flat, contiguous float32 values, found torch\.float64"):
        form.encode_into(torch.zeros(8, dtype=torch.float64), payload)
    with pytest.raises(UsageError, match="needs 8 bytes of uint8 for its payload, found 9"):
        form.encode_into(torch.zeros(8), torch.empty(9, dtype=torch.uint8))
    with pytest.raises(UsageError, match="at 1 beyond one: allocate it there"):
        form.encode_into(torch.zeros(8), torch.empty(9, dtype=torch.uint8)[1:])
    with pytest.raises(CodecError, match="for 8 values has 8 bytes, found 3"):
        form.decode_into(payload[:3], torch.zeros(8))


@pytest.mark.skipif(DEVICE == "cuda", reason="it is for those who have none")
def test_the_benchmark_measures_nothing_without_a_gpu(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert device_codecs.main() == 0
    assert capsys.readouterr() == ("", "there is no CUDA device here: nothing was measured\n")

    def timed_s(job: Callable[[], object]) -> float:
        job()
        return 1.0

    monkeypatch.setattr(device_codecs, "timed_s", timed_s)
    report = device_codecs.measure(torch.device("cpu"), num_values=512, turns=0)
    shares = {(row.codec, row.what): row.share for row in report.rows}
    # Values and residuals are read, residuals and half a byte each written, and 4 for each 256; a copy moves 8 each.
    assert shares["quantize(bits=4)", "encode with error feedback"] == round((12 + 0.5 + 4 / 256) / 8, 3)
    assert len(shares) == 2 * len(device_codecs.FORMS)


def test_they_compile_for_a_gpu_that_is_not_there_and_round_as_the_twins() -> None:
    """The interpreter takes more than the compiler, and has no fused multiply-adds to forbid."""
    forms = ("quantize(bits=4)", "quantize(bits=8)", "cast(to=float16)", "cast(to=bfloat16)", "sign")
    command = [sys.executable, str(COMPILER), *forms]
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    answer = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100)
    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert len(lines) >= 2 * len(forms)
    assert not [line for line in lines if not line.endswith(": good")]
