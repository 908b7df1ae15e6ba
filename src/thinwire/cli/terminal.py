"""The two consoles: data on stdout, talk on stderr.

Not here: the one-line form of errors, which ``app`` owns.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@cache
def talk() -> Console:
    """Progress and remarks: stderr."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


@cache
def data() -> Console:
    """Results: stdout."""
    from rich.console import Console

    return Console(highlight=False)
