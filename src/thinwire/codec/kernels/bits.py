"""What NumPy cannot say: which of 64 elements are large, where the lowest bit is, and two hashes.

Each of the first two is one or a few instructions on any processor that LLVM knows (and a short loop where it has
none), because it is written in LLVM's vector types.

Not here: anything that knows of a codec.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from thinwire.codec.kernels import kernel
from thinwire.codec.kernels.random_bits import ODD

GROUP = 64
MAGNITUDE = 0x7FFFFFFF  # of a float32's bits, all but the sign: ordered as the magnitudes are, with NaN above infinity


def _type_at_least(context: Any, bits: Any, start: Any, least: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        vector = ir.VectorType(ir.IntType(32), GROUP)
        address = builder.bitcast(builder.gep(array.data, [arguments[1]]), vector.as_pointer())
        loaded = builder.load(address)
        loaded.align = 4
        nothing = ir.Constant(vector, ir.Undefined)
        least = builder.insert_element(nothing, arguments[2], ir.Constant(ir.IntType(32), 0))
        least = builder.shuffle_vector(least, nothing, ir.Constant(vector, [0] * GROUP))
        magnitudes = builder.and_(loaded, ir.Constant(vector, [MAGNITUDE] * GROUP))
        return builder.bitcast(builder.icmp_signed(">=", magnitudes, least), ir.IntType(GROUP))

    return types.uint64(bits, types.int64, types.int32), generate


def _type_lowest_bit(context: Any, mask: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


# (bits, start, least): bit i of the answer says whether the magnitude of bits[start + i] is least or more. ``bits`` is
# a contiguous array of int32 with GROUP elements from ``start`` on.
at_least: Any = intrinsic(_type_at_least)
# (mask): the number of zeros below the lowest one of 64 bits; 64 where there is no one.
lowest_bit: Any = intrinsic(_type_lowest_bit)


@kernel
def hashed(seed: np.uint64, index: np.uint64) -> np.uint64:
    """64 bits that look random: the ``index``-th output of SplitMix64 (Steele, Lea and Flood 2014) from ``seed``."""
    x = np.uint64(seed + (index + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
    x = np.uint64((x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9))
    x = np.uint64((x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB))
    return np.uint64(x ^ (x >> np.uint64(31)))


@kernel
def mixed(key: np.uint32, position: np.uint32) -> np.uint32:
    """The 32 random bits of a position of a block with this key: see ``random_bits``, which is the same in NumPy."""
    bits = np.uint32(np.uint32(position * np.uint32(ODD)) ^ key)
    bits = np.uint32(bits ^ np.uint32(bits >> np.uint32(16)))
    bits = np.uint32(bits * np.uint32(0x7FEB352D))
    bits = np.uint32(bits ^ np.uint32(bits >> np.uint32(15)))
    bits = np.uint32(bits * np.uint32(0x846CA68B))
    return np.uint32(bits ^ np.uint32(bits >> np.uint32(16)))


@kernel
def mixed_vector(key: np.uint32, positions: Any) -> Any:
    """``mixed`` of a vector of positions (``vectors``), which needs no help to stay within 32 bits."""
    bits = positions * np.uint32(ODD) ^ key
    bits = bits ^ bits >> 16
    bits = bits * np.uint32(0x7FEB352D)
    bits = bits ^ bits >> 15
    bits = bits * np.uint32(0x846CA68B)
    return bits ^ bits >> 16


@kernel
def unit(seed: np.uint64, index: np.uint64) -> np.float32:
    """A float32 in [0, 1) with 24 random bits."""
    return np.float32(np.float32(hashed(seed, index) >> np.uint64(40)) * np.float32(2.0**-24))
