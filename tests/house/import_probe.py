"""Import each module named on the command line in a process of its own, and print what that changed, as JSON.

Third-party libraries are loaded once, before the processes are forked; thinwire's modules never are, so each import
starts from nothing and finds cycles too.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable

os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"  # else torch imports thinwire

import msgspec  # noqa: F401
import numba  # noqa: F401
import numpy  # noqa: F401
import pyroute2  # noqa: F401
import torch.distributed.run
import typer  # noqa: F401

OBSERVERS: dict[str, Callable[[], object]] = {
    "threads": lambda: sorted(thread.name for thread in threading.enumerate()),
    "environment": lambda: dict(os.environ),
    "log handlers": lambda: [str(handler) for handler in logging.getLogger().handlers],
    "log levels": lambda: sorted(
        (name, logger.level, len(logger.handlers))
        for name, logger in logging.root.manager.loggerDict.items()
        if isinstance(logger, logging.Logger) and (logger.level or logger.handlers)
    ),
    "signal handlers": lambda: [signal.getsignal(number) for number in sorted(signal.valid_signals())],
    "open files": lambda: sorted(os.listdir("/proc/self/fd")),
    "torch threads": torch.get_num_threads,
    "default dtype": torch.get_default_dtype,
}


def effects_of_importing(name: str) -> list[str]:
    before = {what: observe() for what, observe in OBSERVERS.items()}
    try:
        importlib.import_module(name)
    except BaseException:
        return [traceback.format_exc()]
    return [
        f"{what}: {before[what]} became {observe()}"
        for what, observe in OBSERVERS.items()
        if observe() != before[what]
    ]


def in_a_child(name: str) -> list[str]:
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, json.dumps(effects_of_importing(name)).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as answers:
        answer = answers.read()
    os.wait()
    return json.loads(answer) if answer else ["the process died"]


if __name__ == "__main__":
    assert not [name for name in sys.modules if name.split(".")[0] == "thinwire"]
    print(json.dumps({name: in_a_child(name) for name in sys.argv[1:]}))
