"""How long this process's threads have waited for a core: where they do, it is not the wire that training waits for.

Not here: what follows (``autopilot``).
"""

from __future__ import annotations

import contextlib
from pathlib import Path

_TASKS = Path("/proc/self/task")


def waited_for_cores_s(tasks: Path = _TASKS) -> float | None:
    """The time that all threads together were ready to run and did not, since they began; None where nobody knows.

    Linux tells it in ``/proc/<pid>/task/<tid>/schedstat``: nanoseconds on a core, nanoseconds waiting for one.

    >>> waited_for_cores_s(Path("/no/such/folder")) is None
    True
    """
    total_ns, is_known = 0, False
    with contextlib.suppress(OSError):
        for task in tasks.iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):  # a thread may end meanwhile
                total_ns += int((task / "schedstat").read_text().split()[1])
                is_known = True
    return total_ns / 1e9 if is_known else None
