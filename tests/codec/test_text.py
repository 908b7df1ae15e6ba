"""Codecs as text: what is written is what is made, and mistakes are told with what there is."""

from __future__ import annotations

import pytest

from thinwire.codec.feedback import ErrorFeedback
from thinwire.codec.quantize import Quantize
from thinwire.codec.rotate import Rotate
from thinwire.codec.sign import Sign
from thinwire.codec.text import CODECS, parse
from thinwire.errors import UsageError


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        ("quantize(bits=4)", Quantize(bits=4)),
        (" quantize ( bits = 2 ) ", Quantize(bits=2)),
        ("quantize(bits=4, rounding='stochastic')", Quantize(bits=4, rounding="stochastic")),
        ("error_feedback(rotate(quantize(bits=1), width=8))", ErrorFeedback(Rotate(Quantize(bits=1), 8))),
        ("quantize(bits=8, levels=uniform)", Quantize(bits=8, levels="uniform")),
        ("quantize(bits=4, levels=none)", Quantize(bits=4)),
        ("error_feedback(inner=sign)", ErrorFeedback(Sign())),
        ("error_feedback(inner=quantize(bits=4, block=64))", ErrorFeedback(Quantize(bits=4, block=64))),
    ],
)
def test_text_and_codec_are_the_same(text: str, codec: object) -> None:
    assert parse(text) == codec
    assert parse(str(codec)) == codec


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not a codec"),
        ("quantise", "there is no codec 'quantise'; there are cast"),
        ("quantize(bit=4)", "no parameter 'bit'.*bits: a whole number"),
        ("quantize(4)", "not a codec"),
        ("quantize(block=64)", "needs bits"),
        ("quantize(bits=4.5)", "takes a whole number, not 4.5"),
        ("quantize(bits=true)", "takes a whole number"),
        ("quantize(levels=up)", "takes lloyd_max or uniform or none, not up"),
        ("quantize(rounding=up)", "nearest or stochastic"),
        ("quantize(bits=4, bits=2)", "given bits twice"),
        ("quantize(bits=5)", "bits of 1, 2"),
        ("quantize(sign)", "holds no codec"),
        ("error_feedback", "needs inner"),
        ("error_feedback(sign, sign)", "holds 1 codec"),
        ("error_feedback(**{})", "no parameter"),
        ("quantize(bits=__import__('os'))", "whole number"),
        ("sign.sign()", "not a codec"),
        ("(" * 900 + ")" * 900, "not a codec"),
        ("sign" + " " * 3000, "at most"),
        ("sign\0", "not a codec"),
    ],
)
def test_mistakes_are_told_with_what_there_is(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        parse(text)


def test_every_codec_is_known_by_its_name() -> None:
    assert all(codec.name() == name for name, codec in CODECS.items())
