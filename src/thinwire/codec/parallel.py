"""Large encodes on several threads, but only on cores that the training does not use.

How many are free is decided at each call: the cores this process may run on, shared evenly among the ranks that
torchrun started here (LOCAL_WORLD_SIZE), less the threads that torch computes with (torch's own number if it is
loaded, else OMP_NUM_THREADS, else all cores, which is what torch would take). The calling thread always takes
part, so with nothing free it encodes alone. Parts are cut at block borders, so the payload is the same.

Not here: the kernels, which release the GIL.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

_LEAST_VALUES_A_THREAD = 1 << 20  # takes about a millisecond, ten times what starting a thread does


def free_cores() -> int:
    """Cores for this process beyond those its training computes on, and the calling thread's; 0 or more."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ranks = _positive(os.environ.get("LOCAL_WORLD_SIZE"), 1)
    torch = sys.modules.get("torch")
    computing = torch.get_num_threads() if torch else _positive(os.environ.get("OMP_NUM_THREADS"), cores)
    return max(0, cores // ranks - computing)


def in_parts(num_blocks: int, block: int, work: Callable[[int, int], None]) -> None:
    """Call ``work(first block, end block)`` until all blocks are done, on the free cores beside this thread."""
    num_threads = min(1 + num_blocks * block // _LEAST_VALUES_A_THREAD, num_blocks)
    if num_threads > 1:
        num_threads = min(num_threads, 1 + free_cores())
    if num_threads <= 1:
        if num_blocks:
            work(0, num_blocks)
        return
    borders = [num_blocks * part // num_threads for part in range(num_threads + 1)]
    with ThreadPoolExecutor(num_threads - 1, thread_name_prefix="thinwire-codec") as pool:
        others = [pool.submit(work, *part) for part in pairwise(borders[1:])]
        work(borders[0], borders[1])
        for other in others:
            other.result()


def _positive(text: str | None, otherwise: int) -> int:
    return int(text) if text is not None and text.isdecimal() and int(text) > 0 else otherwise
