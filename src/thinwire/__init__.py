"""thinwire: trains, federates and serves PyTorch models over the network you have.

Importing it registers the backend ``"thinwire"`` with torch.distributed and does nothing else::

    import thinwire

    torch.distributed.init_process_group("thinwire")

It does not import torch for that, which takes a second that a command line does not have: where torch comes later,
torch itself loads the backend, through the entry point ``torch.backends`` of the installed package. Only where it
would not (the package is not installed, or ``TORCH_DEVICE_BACKEND_AUTOLOAD=0``) is torch imported here and now.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
from typing import TYPE_CHECKING, Any

__all__ = ["CodecMemory", "DataParallel", "__version__", "all_reduce", "attach", "replace"]

__version__ = "0.1.0"

if TYPE_CHECKING:
    from thinwire.runtime.codec_memory import CodecMemory
    from thinwire.runtime.fidelity import all_reduce
    from thinwire.training.attach import attach
    from thinwire.training.data_parallel import DataParallel

_LAZY = {
    "CodecMemory": "thinwire.runtime.codec_memory",
    "DataParallel": "thinwire.training.data_parallel",
    "all_reduce": "thinwire.runtime.fidelity",
    "attach": "thinwire.training.attach",
}


def replace(backend: str = "gloo") -> None:
    """Give thinwire to whoever asks torch.distributed for another backend; see ``runtime.registration``."""
    from thinwire.runtime import registration

    registration.replace(backend)


def __getattr__(name: str) -> Any:
    """Names whose modules are imported when they are first used, because they need torch or NumPy."""
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'thinwire' has no attribute {name!r}")


def _torch_will_load_the_backend() -> bool:
    if "torch" in sys.modules or os.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD", "1") != "1":
        return False
    try:
        entry_points = importlib.metadata.distribution("thinwire").entry_points
    except importlib.metadata.PackageNotFoundError:
        return False
    return any(entry_point.group == "torch.backends" for entry_point in entry_points)


if not _torch_will_load_the_backend():
    from thinwire.runtime import registration

    registration.register()
