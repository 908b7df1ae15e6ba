"""What ``thinwire run`` starts in each process: make the backend known, then become the script.

    python -m thinwire.cli.worker [--replace BACKEND] [-m] SCRIPT [ARGUMENTS...]

The script runs as ``__main__`` with its own ``sys.argv`` and import path, as ``python SCRIPT`` would run it; a
traceback shows its frames only. Not here: launching, which torchrun's engine does.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import TracebackType

_OWN_FILES = {__file__, runpy.__file__, "<frozen runpy>"}


def main(arguments: list[str]) -> None:
    """Run the script that ``arguments`` name, with the backend registered and, if asked, another one replaced."""
    import thinwire

    if arguments[0] == "--replace":
        thinwire.replace(arguments[1])
        arguments = arguments[2:]
    sys.excepthook = _print_script_traceback
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path[0] = str(Path.cwd())
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
        runpy.run_path(sys.argv[0], run_name="__main__")


def _print_script_traceback(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Print the traceback without the frames that led to the script."""
    while traceback and traceback.tb_frame.f_code.co_filename in _OWN_FILES:
        traceback = traceback.tb_next
    sys.__excepthook__(kind, error.with_traceback(traceback), traceback)


if __name__ == "__main__":
    main(sys.argv[1:])
