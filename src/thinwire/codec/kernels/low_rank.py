"""Products of a matrix with few vectors, each added up in one written order, so that every machine gets the same bits.

BLAS is faster by a small factor and gives other bits on other processors; replicas that decode the same payload
must not drift apart.

Not here: what the products are for (``thinwire.codec.low_rank``).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from thinwire.codec.kernels import kernel
from thinwire.codec.kernels.bits import unit

_LANES = 16
_TILE = 512  # columns whose part of all the vectors stays in the first-level cache
_DEPENDENT = 1e-5  # a vector that loses so much of its length was a combination of those before it


@kernel
def fill_noise(seed: np.uint64, vector: Any) -> None:
    """Uniform in [-1, 1)."""
    for i in range(vector.size):
        vector[i] = np.float32(2) * unit(seed, np.uint64(i)) - np.float32(1)


@kernel
def largest_magnitude(values: Any) -> np.float32:
    """0 for no values."""
    largest = np.float32(0)
    for i in range(values.size):
        largest = max(largest, abs(values[i]))
    return largest


@kernel
def times_vectors(matrix: Any, scale: np.float32, vectors: Any, out: Any) -> None:
    """out[j, i] = scale * sum over c of matrix[i, c] * vectors[j, c]; float64 out."""
    num_rows, num_columns = matrix.shape
    lanes = np.empty(_LANES, np.float32)
    whole = num_columns - num_columns % _LANES
    for i in range(num_rows):
        row = matrix[i]
        for j in range(vectors.shape[0]):
            vector = vectors[j]
            lanes[:] = 0
            total = 0.0
            for c in range(0, whole, _LANES):
                few, with_few = row[c : c + _LANES], vector[c : c + _LANES]
                for lane in range(_LANES):
                    lanes[lane] += (few[lane] * scale) * with_few[lane]
            for lane in range(_LANES):
                total += lanes[lane]
            for c in range(whole, num_columns):
                total += (row[c] * scale) * vector[c]
            out[j, i] = total


@kernel
def transposed_times_vectors(matrix: Any, scale: np.float32, vectors: Any, out: Any) -> None:
    """out[j, c] = scale * sum over i of matrix[i, c] * vectors[j, i]."""
    num_rows, num_columns = matrix.shape
    out[:] = 0
    by_four = num_rows - num_rows % 4
    for begin in range(0, num_columns, _TILE):
        end = min(begin + _TILE, num_columns)
        for i in range(0, by_four, 4):
            row0, row1, row2, row3 = (
                matrix[i, begin:end],
                matrix[i + 1, begin:end],
                matrix[i + 2, begin:end],
                matrix[i + 3, begin:end],
            )
            for j in range(vectors.shape[0]):
                factor0, factor1, factor2, factor3 = (
                    np.float32(vectors[j, i]),
                    np.float32(vectors[j, i + 1]),
                    np.float32(vectors[j, i + 2]),
                    np.float32(vectors[j, i + 3]),
                )
                target = out[j, begin:end]
                for c in range(target.size):
                    total = target[c] + (row0[c] * scale) * factor0
                    total += (row1[c] * scale) * factor1
                    total += (row2[c] * scale) * factor2
                    target[c] = total + (row3[c] * scale) * factor3
        for i in range(by_four, num_rows):
            row = matrix[i, begin:end]
            for j in range(vectors.shape[0]):
                factor = np.float32(vectors[j, i])
                target = out[j, begin:end]
                for c in range(target.size):
                    target[c] += (row[c] * scale) * factor


@kernel
def _dot(one: Any, other: Any) -> float:
    """In float64, as many sums side by side as there are lanes, which are added up at the end."""
    lanes = np.zeros(_LANES)
    whole = one.size - one.size % _LANES
    for c in range(0, whole, _LANES):
        few, with_few = one[c : c + _LANES], other[c : c + _LANES]
        for lane in range(_LANES):
            lanes[lane] += few[lane] * with_few[lane]
    total = 0.0
    for lane in range(_LANES):
        total += lanes[lane]
    for c in range(whole, one.size):
        total += one[c] * other[c]
    return total


@kernel
def orthonormalise(vectors: Any) -> None:
    """Gram and Schmidt's method, twice for each vector, in float64; vectors that depend on others become zero."""
    for j in range(vectors.shape[0]):
        vector = vectors[j]
        before = np.sqrt(_dot(vector, vector))
        for _ in range(2):
            for k in range(j):
                other = vectors[k]
                overlap = _dot(vector, other)
                for c in range(vector.size):
                    vector[c] -= overlap * other[c]
        after = np.sqrt(_dot(vector, vector))
        if after > _DEPENDENT * before:
            vector /= after
        else:
            vector[:] = 0


@kernel
def add_product(left: Any, right: Any, scale: np.float32, add: bool, out: Any) -> None:
    """out[i, c] = scale * sum over j of left[j, i] * right[j, c]; with ``add``, that is added to what is there."""
    num_rows, num_columns = out.shape
    num_vectors = left.shape[0]
    by_four = num_vectors - num_vectors % 4
    tile = np.empty(_TILE, np.float32)
    for begin in range(0, num_columns, _TILE):
        end = min(begin + _TILE, num_columns)
        row = tile[: end - begin]
        for i in range(num_rows):
            row[:] = 0
            for j in range(0, by_four, 4):
                factor0, factor1, factor2, factor3 = (
                    left[j, i],
                    left[j + 1, i],
                    left[j + 2, i],
                    left[j + 3, i],
                )
                vector0, vector1, vector2, vector3 = (
                    right[j, begin:end],
                    right[j + 1, begin:end],
                    right[j + 2, begin:end],
                    right[j + 3, begin:end],
                )
                for c in range(row.size):
                    total = row[c] + factor0 * vector0[c]
                    total += factor1 * vector1[c]
                    total += factor2 * vector2[c]
                    row[c] = total + factor3 * vector3[c]
            for j in range(by_four, num_vectors):
                factor, vector = left[j, i], right[j, begin:end]
                for c in range(row.size):
                    row[c] += factor * vector[c]
            target = out[i, begin:end]
            if add:
                for c in range(row.size):
                    target[c] += row[c] * scale
            else:
                for c in range(row.size):
                    target[c] = row[c] * scale
