"""From the traces of the ranks that ran here to one file.

Each rank writes its own part when it leaves (``THINWIRE_TRACE``); afterwards the parts become one trace on one time
axis. Not here: recording, and the format, which are ``thinwire.trace``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from thinwire.errors import UsageError


@contextmanager
def collected_trace(file: Path) -> Iterator[None]:
    """Processes started inside write their parts, and ``file`` holds them all at the end, also after a failure.

    Raises:
        UsageError: ``file`` cannot be written, or nothing was traced.
    """
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise UsageError(f"--trace {file}: the trace needs a file name in a folder that exists")
    from thinwire.trace import merge, write_chrome

    with tempfile.TemporaryDirectory(prefix="thinwire-trace-") as folder:
        os.environ["THINWIRE_TRACE"] = f"{folder}/part"
        try:
            yield
        finally:
            del os.environ["THINWIRE_TRACE"]
            parts = sorted(Path(folder).iterdir())
            if parts:
                write_chrome(file, merge(parts))
        if not parts:
            raise UsageError(
                f"nothing was traced: the script made no thinwire group (see --replace); no {file}"
            )
