"""The conformance kit, over codecs that hold others, and those that are sparse, of low rank or entropy-coded."""

from __future__ import annotations

import numpy as np
import pytest

from thinwire.codec.text import CODECS, parse
from thinwire.testing.codecs import check_codec

TEXTS = [
    "plain",
    "top_k(k=1)",
    "top_k(k=0.05)",
    "top_k(k=64, block=512)",
    "top_k(quantize(bits=2, block=64), k=0.1)",
    "random_k(k=7)",
    "random_k(k=0.1, unbiased=false)",
    "low_rank(low_rank_dim=1)",
    "low_rank(low_rank_dim=4)",
    "homomorphic(bits=8)",
    "homomorphic(bits=32, num_contributions=3, stochastic=false)",
    "rans(plain)",
    "rans(quantize(bits=4))",
    "chain(top_k(k=3), low_rank(low_rank_dim=2), rans(quantize(bits=1)))",
    "warm_up(plain, top_k(k=0.1), num_encodes=3)",
    "warm_up(low_rank(low_rank_dim=2), momentum(random_k(k=2)), num_encodes=0)",
    "per_tensor(low_rank(low_rank_dim=2), quantize(bits=4), small_values=10)",
    "momentum(top_k(k=0.02))",
]


@pytest.mark.parametrize("text", TEXTS)
def test_it_is_a_codec(text: str) -> None:
    codec = parse(text)
    payload = codec.encode(np.ones(5, np.float32)).payload
    payload.flags.writeable = False
    codec.decode(payload, (5,))  # compiled now, not while the kit measures memory
    check_codec(codec)
    assert parse(str(codec)) == codec


def test_none_is_left_out() -> None:
    elsewhere = {"cast", "error_feedback", "quantize", "rotate", "sign"}  # each in a file of its own
    assert not {name for name in CODECS if not any(name in text for text in TEXTS)} - elsewhere
