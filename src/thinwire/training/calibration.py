"""What each codec costs on this machine, in time and in error: measured once in about a second, then remembered.

The sample is made up: normal values whose scale differs from one stretch of 1024 to the next, as layers' do, and for
factors a matrix of few directions. Real gradients are more uneven, and an encode of few bits loses up to three times as
much of them (``experiments/LOG.md``); so errors are good for comparing a form with itself on other machines, and what
training really loses is for the guard to see. Speeds are those of one thread, error feedback included, the best of a
few runs. They are kept in the user's cache folder and measured anew for another version of thinwire, NumPy or Numba,
another processor or another codec.

Not here: what follows (``planner``).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np

from thinwire.clock import Clock
from thinwire.codec.base import Codec, Floats
from thinwire.codec.low_rank import LowRank
from thinwire.planner.forms import Form

NUM_VALUES = 1 << 19
WHOLE_S = 1.0  # for all codecs together
MATRIX = (1024, 512)
_NUM_DIRECTIONS = 64  # of a matrix: a gradient has no more than its batch has examples
_RUNS_LEAST = 2


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Of one codec. ``error`` is relative, of one encode; the times are seconds a value."""

    error: float
    encode_s_per_value: float
    decode_s_per_value: float


def calibrated(codecs: Sequence[Codec], clock: Clock, cache: Path | None = None) -> list[Form]:
    """A form for each codec, with what it costs here.

    Args:
        cache: where costs are remembered; None: ``$XDG_CACHE_HOME/thinwire``, or ``~/.cache/thinwire``.
    """
    path = (cache or cache_folder()) / "codecs.json"
    known = _load(path)
    missing = [codec for codec in codecs if _key(codec) not in known]
    if missing:
        sample, matrix = gradient_like(NUM_VALUES), matrix_like(MATRIX)
        limit_s = WHOLE_S / len(missing)
        known |= {
            _key(codec): measure(codec, matrix if isinstance(codec, LowRank) else sample, clock, limit_s)
            for codec in missing
        }
        _save(path, known)
    return [
        Form(
            name=str(codec),
            codec=codec,
            error=known[_key(codec)].error,
            encode_s_per_value=known[_key(codec)].encode_s_per_value,
            decode_s_per_value=known[_key(codec)].decode_s_per_value,
        )
        for codec in codecs
    ]


def measure(codec: Codec, sample: Floats, clock: Clock, limit_s: float) -> Cost:
    """Encode with error feedback, and decode-and-add, again and again for about ``limit_s``."""
    payload = np.empty(codec.payload_bound(sample.shape), np.uint8)
    residual, total = np.zeros_like(sample), np.zeros_like(sample)
    state = codec.initial_state(sample.shape)
    num_bytes = 0

    def encode() -> None:
        nonlocal num_bytes
        residual[:] = 0
        num_bytes = codec.encode_with_residual(sample, residual, state, 1, payload, state)

    def decode() -> None:
        codec.add_decoded(payload[:num_bytes], total)

    encode()  # compiles
    decode()
    error = float(np.linalg.norm(residual) / np.linalg.norm(sample))
    return Cost(
        error=error,
        encode_s_per_value=_best(encode, clock, limit_s / 2) / sample.size,
        decode_s_per_value=_best(decode, clock, limit_s / 2) / sample.size,
    )


def gradient_like(num_values: int) -> Floats:
    """Normal values in stretches of different scale.

    >>> gradient_like(4096).std() < gradient_like(4096).max()
    np.True_
    """
    generator = np.random.default_rng(0)
    scales = np.repeat(np.exp(generator.normal(0, 1, -(-num_values // 1024))), 1024)[:num_values]
    sample: Floats = (generator.standard_normal(num_values) * scales).astype(np.float32)
    return sample


def matrix_like(shape: tuple[int, int]) -> Floats:
    """A matrix whose n-th singular value is about the n-th part of the first: few directions have most of it."""
    generator = np.random.default_rng(0)
    left, right = (
        generator.standard_normal((shape[0], _NUM_DIRECTIONS)),
        generator.standard_normal((_NUM_DIRECTIONS, shape[1])),
    )
    matrix: Floats = ((left / np.arange(1, _NUM_DIRECTIONS + 1)) @ right).astype(np.float32)
    return matrix


def cache_folder() -> Path:
    """Where thinwire keeps what it would else measure again."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "thinwire"


@functools.cache
def machine() -> str:
    """What costs depend on, hashed: versions, and the processor's name and features."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
        return _digest("\n".join([_versions(), *features]))
    return _digest(f"{_versions()} {platform.machine()} {platform.processor()}")


def _versions() -> str:
    from thinwire import __version__  # late: thinwire's own module is not whole while it is imported

    return f"{__version__} {np.__version__} {version('numba')}"


def _key(codec: Codec) -> str:
    return f"{machine()} {codec}"


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _best(run: Callable[[], None], clock: Clock, limit_s: float) -> float:
    best_s, begun_s, num_runs = float("inf"), clock.now_s(), 0
    while num_runs < _RUNS_LEAST or clock.now_s() - begun_s < limit_s:
        start_s = clock.now_s()
        run()
        best_s = min(best_s, clock.now_s() - start_s)
        num_runs += 1
    return best_s


def _load(path: Path) -> dict[str, Cost]:
    """What is remembered; nothing if it cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Cost])
    except (OSError, msgspec.DecodeError):
        return {}


def _save(path: Path, costs: dict[str, Cost]) -> None:
    """Whole or not at all: several ranks may write at once. A folder that cannot be written to is no reason to fail."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(msgspec.json.encode(costs))
        os.replace(file.name, path)
