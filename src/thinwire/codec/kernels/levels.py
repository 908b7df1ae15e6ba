"""The levels of scalar quantisers, as whole numbers, so that every machine has the same.

Lloyd-Max levels are those of the standard normal distribution (Max 1960, Lloyd 1982) in units of 1/512 of its
standard deviation; ``tests/codec/test_levels.py`` finds them anew. Uniform levels are the odd numbers.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

UNITS = 512

# fmt: off
_POSITIVE: dict[int, list[int]] = {
    1: [409],
    2: [232, 773],
    3: [125, 387, 688, 1102],
    4: [66, 199, 336, 482, 643, 828, 1059, 1399],
    6: [
        17, 51, 86, 120, 155, 190, 225, 260, 296, 333, 370, 407, 446, 485, 525, 567, 609, 653, 699,
        747, 797, 849, 905, 965, 1029, 1099, 1177, 1265, 1368, 1494, 1659, 1917,
    ],
    8: [
        4, 13, 22, 30, 39, 48, 56, 65, 74, 82, 91, 100, 109, 117, 126, 135, 144, 152, 161, 170, 179,
        188, 197, 205, 214, 223, 232, 241, 250, 259, 268, 277, 287, 296, 305, 314, 323, 333, 342,
        351, 361, 370, 380, 389, 399, 408, 418, 428, 437, 447, 457, 467, 477, 487, 497, 507, 517,
        528, 538, 548, 559, 570, 580, 591, 602, 613, 624, 635, 646, 657, 669, 680, 692, 704, 716,
        728, 740, 752, 765, 777, 790, 803, 816, 829, 843, 857, 870, 885, 899, 913, 928, 943, 959,
        974, 990, 1007, 1023, 1040, 1058, 1075, 1094, 1112, 1132, 1151, 1172, 1193, 1214, 1237,
        1260, 1284, 1309, 1336, 1363, 1392, 1422, 1454, 1489, 1525, 1564, 1607, 1654, 1706, 1764,
        1832, 1911, 2011, 2144, 2358,
    ],
}
# fmt: on
BITS = tuple(_POSITIVE)


@cache
def lloyd_max(bits: int) -> npt.NDArray[np.int16]:
    """The 2**bits levels, ascending.

    >>> lloyd_max(2).tolist()
    [-773, -232, 232, 773]
    """
    positive = np.array(_POSITIVE[bits], np.int16)
    return _read_only(np.concatenate([-positive[::-1], positive]))


@cache
def uniform(bits: int) -> npt.NDArray[np.int16]:
    """The 2**bits levels, ascending, two apart.

    >>> uniform(2).tolist()
    [-3, -1, 1, 3]
    """
    return _read_only(np.arange(1 - (1 << bits), 1 << bits, 2, dtype=np.int16))


@cache
def limits(bits: int, units: int) -> npt.NDArray[np.int16]:
    """The borders between the positive Lloyd-Max levels, in 1/``units`` of the standard deviation.

    Seven, those not used out of reach.
    """
    positive = np.array(_POSITIVE[bits][:8], np.float64)
    borders = np.full(7, 32767.0)
    borders[: positive.size - 1] = np.ceil((positive[1:] + positive[:-1]) * (units / (2 * UNITS)))
    return _read_only(borders.astype(np.int16))


@cache
def words(bits: int, place_shift: int) -> npt.NDArray[np.int16]:
    """The first eight positive levels, and in the bits from ``place_shift`` on the number of each; the last repeated.

    >>> words(2, 12).tolist()[:3] == [232, 773 | 1 << 12, 773 | 1 << 12]
    True
    """
    positive = _POSITIVE[bits][:8]
    numbers = np.minimum(np.arange(8), len(positive) - 1)
    return _read_only((np.array(positive)[numbers] | numbers << place_shift).astype(np.int16))


@cache
def cells(bits: int, num_cells: int) -> npt.NDArray[np.uint8]:
    """The number of the level nearest to each whole number of units from ``-num_cells / 2`` on."""
    levels = lloyd_max(bits).astype(np.float64)
    borders = (levels[1:] + levels[:-1]) / 2
    return _read_only(np.searchsorted(borders, np.arange(num_cells) - num_cells // 2).astype(np.uint8))


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.flags.writeable = False
    return array
