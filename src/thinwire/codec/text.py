"""Codecs as people write them: ``error_feedback(quantize(bits=4, block=256))``.

A codec is written as its name and, in brackets, first the codecs it holds and then parameters by name. What is
not written is as by default; ``str(codec)`` writes it back. Numbers and ``true`` or ``false`` are written as such,
choices as bare words.

A new codec is added to ``CODECS``, which is all that it takes to be known by name everywhere.

Not here: which codec is worth its error (``planner``).
"""

from __future__ import annotations

import ast
import dataclasses
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from thinwire.codec.base import Codec
from thinwire.codec.cast import Cast
from thinwire.codec.chain import Chain
from thinwire.codec.feedback import ErrorFeedback
from thinwire.codec.homomorphic import Homomorphic
from thinwire.codec.low_rank import LowRank
from thinwire.codec.momentum import Momentum
from thinwire.codec.per_tensor import PerTensor
from thinwire.codec.plain import Plain
from thinwire.codec.quantize import Quantize
from thinwire.codec.random_k import RandomK
from thinwire.codec.rans import Rans
from thinwire.codec.rotate import Rotate
from thinwire.codec.sign import Sign
from thinwire.codec.top_k import TopK
from thinwire.codec.warm_up import WarmUp
from thinwire.errors import UsageError

CODECS: dict[str, type[Codec]] = {
    codec.name(): codec
    for codec in (
        Cast,
        Chain,
        ErrorFeedback,
        Homomorphic,
        LowRank,
        Momentum,
        PerTensor,
        Plain,
        Quantize,
        RandomK,
        Rans,
        Rotate,
        Sign,
        TopK,
        WarmUp,
    )
}

_MOST_CHARACTERS = 2000
_WORDS = {"true": True, "false": False, "none": None}


def parse(text: str) -> Codec:
    """The codec that ``text`` names.

    Raises:
        UsageError: there is no such codec or parameter, or a value is not one that it takes. The message says what
            there is.

    >>> codec = parse("error_feedback(quantize(bits=2, block=256))")
    >>> codec.inner.bits, str(codec)
    (2, 'error_feedback(quantize(bits=2))')
    """
    try:
        if len(text) > _MOST_CHARACTERS:
            raise UsageError(
                f"a codec is written in at most {_MOST_CHARACTERS} characters; this has {len(text)}"
            )
        return _codec(ast.parse(text.strip(), mode="eval").body, text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as problem:
        if isinstance(problem, UsageError):
            raise
        raise UsageError(f"{text!r} is not a codec; write one as in quantize(bits=4)") from None


def _codec(node: ast.expr, text: str) -> Codec:
    call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
    if not isinstance(call.func, ast.Name):
        raise UsageError(f"{text!r} is not a codec; write one as in quantize(bits=4)")
    name = call.func.id
    if name not in CODECS:
        raise UsageError(f"there is no codec {name!r}; there are {', '.join(sorted(CODECS))}")
    kind = CODECS[name]
    hints = get_type_hints(kind)
    fields = {field.name: hints[field.name] for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    arguments = _held([_codec(argument, text) for argument in call.args], name, fields)
    for keyword in call.keywords:
        if keyword.arg in arguments:
            raise UsageError(f"{name} is given {keyword.arg} twice in {text!r}")
        if keyword.arg is None or keyword.arg not in fields:
            raise UsageError(
                f"{name} has no parameter {keyword.arg!r}; it has {_signature(fields) or 'none'}"
            )
        arguments[keyword.arg] = _value(
            keyword.value, f"{name}({keyword.arg}=...)", fields[keyword.arg], text
        )
    missing = [
        field.name
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
        if field.name not in arguments
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UsageError(f"{name} needs {' and '.join(missing)}; it has {_signature(fields)}")
    return kind(**arguments)


def _held(codecs: list[Codec], name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The codecs in the brackets, as the fields that hold codecs."""
    several = [field for field, hint in fields.items() if hint == tuple[Codec, ...]]
    if several:
        return {several[0]: tuple(codecs)}
    places = [field for field, hint in fields.items() if hint is Codec]
    if len(codecs) > len(places):
        raise UsageError(
            f"{name} holds {len(places) or 'no'} codec(s), found {len(codecs)}; parameters are written by name, "
            f"and it has {_signature(fields) or 'none'}"
        )
    return dict(zip(places, codecs, strict=False))


def _value(node: ast.expr, where: str, hint: Any, text: str) -> Any:
    choices = _choices(hint)
    if Codec in choices and isinstance(node, ast.Call):
        return _codec(node, text)
    if isinstance(node, ast.Name):
        value: Any = _WORDS.get(node.id, node.id)
        if Codec in choices and value in CODECS:
            return _codec(node, text)
    else:
        try:
            value = ast.literal_eval(node)
        except ValueError:
            value = node  # is of no type that a parameter may have
    if type(value) in choices or any(value is choice or value == choice for choice in choices):
        return value
    if float in choices and type(value) is int:
        return float(value)
    raise UsageError(f"{where} takes {_spelled(hint)}, not {ast.unparse(node)}")


def _choices(hint: Any) -> tuple[Any, ...]:
    """The types, and the values of literals, that a parameter may have."""
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(choice for part in get_args(hint) for choice in _choices(part))
    if get_origin(hint) is Literal:
        return get_args(hint)
    return (None if hint is type(None) else hint,)


def _signature(fields: dict[str, Any]) -> str:
    return ", ".join(f"{field}: {_spelled(hint)}" for field, hint in fields.items())


def _spelled(hint: Any) -> str:
    if hint == tuple[Codec, ...]:
        return "codecs"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", Codec: "a codec"}
    choices = [choice for choice in _choices(hint) if not (choice is int and float in _choices(hint))]
    return " or ".join(names.get(choice, str(choice).lower()) for choice in choices)
