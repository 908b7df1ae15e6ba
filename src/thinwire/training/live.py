"""Shows figures: a line that rewrites itself on a terminal, and the same through ``logging``.

Not here: the figures.
"""

from __future__ import annotations

import logging

from rich.console import Console
from rich.live import Live
from rich.text import Text

from thinwire.training.figures import Figures, Switch

log = logging.getLogger("thinwire.training")


class Display:
    """Where one rank's figures go.

    Args:
        is_shown: whether a live line is wanted; it is shown on a terminal only, on standard error.
        console: instead of standard error's.
    """

    def __init__(self, *, is_shown: bool, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        self._live: Live | None = None
        if is_shown and console.is_terminal:
            self._live = Live(console=console, auto_refresh=False, transient=True)
            self._live.start()

    def show(self, figures: Figures) -> None:
        """The last steps."""
        log.debug("%s", figures)
        if self._live is not None:
            self._live.update(Text(str(figures), overflow="ellipsis", no_wrap=True), refresh=True)

    def announce(self, switch: Switch) -> None:
        """A new plan."""
        log.info("step %d, plan %d: %s", switch.step, switch.plan.number, switch.plan.reason)
        if self._live is not None:
            self._live.console.print(f"thinwire: {switch.plan.reason}", highlight=False, markup=False)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None
