"""What happened, step by step: spans recorded on every rank, put on one time axis, written for ui.perfetto.dev.

``Recorder`` records; ``RankTrace`` and ``Trace`` are the values; ``write_chrome``, ``load`` and ``merge`` the file.
"""

from thinwire.trace.chrome import load, merge, write_chrome
from thinwire.trace.model import Anchor, RankTrace, Span, Trace
from thinwire.trace.recorder import Recorder

__all__ = ["Anchor", "RankTrace", "Recorder", "Span", "Trace", "load", "merge", "write_chrome"]
