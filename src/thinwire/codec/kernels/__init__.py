"""The loops of the codecs over elements and bytes, compiled by Numba and cached on disk.

They let go of the GIL, add in an order that is written down (no fast-math), and are told where to write. None of
them trusts a payload: those that read one return a negative number where the bytes make no sense.

Not here: what the bytes mean, and every check that needs no loop; that is in the codecs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function) -> Function:
    """Compile a function at its first call: GIL released, division as NumPy does it."""
    import numba  # here, because the NumPy twins beside the kernels need none of it

    return cast(Function, numba.njit(nogil=True, cache=True, error_model="numpy")(function))


def compiled(*arguments: Any) -> Callable[[Function], Function]:
    """Compile a function of these types, which returns nothing, when its module is imported: GIL released."""
    import numba

    return cast(
        Callable[[Function], Function], numba.njit([numba.types.void(*arguments)], nogil=True, cache=True)
    )


def read_only(element: Any) -> Any:
    """The type of a contiguous array of ``element`` that the function only reads, and that may be read-only."""
    from numba import types

    return types.Array(element, 1, "C", readonly=True)
