"""``thinwire run``: torchrun's launcher with thinwire in every worker.

Launching, rendezvous and elastic restarts are those of ``torch.distributed.run``; this adds ``--replace`` and
``--trace`` and turns its errors into one line. Not here: what happens inside the workers (``worker``).
"""

from __future__ import annotations

import argparse
import enum
import os
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, NoReturn

import typer

from thinwire.errors import LinkError, ThinwireError, UsageError


class Replaceable(enum.StrEnum):
    GLOO = "gloo"


def run(
    context: typer.Context,
    replace: Annotated[
        Replaceable | None,
        typer.Option(metavar="BACKEND", help="Give scripts that ask for BACKEND (gloo) thinwire instead."),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write every collective of every rank to FILE, for ui.perfetto.dev."
        ),
    ] = None,
) -> int:
    """Launch a training script with torchrun's engine.

    The options below come first; then any option of torchrun (--nproc-per-node, --nnodes, --rdzv-endpoint,
    --max-restarts, -m, ...), the script and its arguments. Without --replace the script asks for the backend
    "thinwire" itself; `import thinwire` is not needed.
    """
    return launch(list(context.args), replace=replace, trace=trace)


def launch(arguments: list[str], *, replace: str | None = None, trace: Path | None = None) -> int:
    """Run torchrun's ``arguments`` to the end and return the exit status.

    Raises:
        UsageError: torchrun would not take the arguments, or the script does not exist.
        LinkError: the rendezvous cannot be reached.
    """
    options = _parse(arguments)
    _put_worker_in_front(options, replace)
    if trace is None:
        return _run_to_the_end(options)
    from thinwire.cli.tracing import collected_trace

    with collected_trace(trace):
        return _run_to_the_end(options)


def _import_torchrun() -> ModuleType:
    """torch's launcher, which else prints a stack trace of its C++ part for every attempt to reach a host."""
    variable = "TORCH_CPP_LOG_LEVEL"
    is_ours = variable not in os.environ  # the workers are to log as the user said, or as they would
    if is_ours:
        os.environ[variable] = "FATAL"
    try:
        return import_module("torch.distributed.run")
    finally:
        if is_ours:
            del os.environ[variable]


def _parse(arguments: list[str]) -> argparse.Namespace:
    torchrun = _import_torchrun()

    def refuse(message: str) -> NoReturn:
        if any(word.split("=")[0] in ("--replace", "--trace") for word in arguments):
            message += "; --replace and --trace go before torchrun's options"
        raise UsageError(f"{message} (see `thinwire run --help` and `torchrun --help`)")

    parser = torchrun.get_args_parser()
    parser.error = refuse
    options: argparse.Namespace = parser.parse_args(arguments)
    try:
        torchrun.parse_min_max_nnodes(options.nnodes)
        torchrun.determine_local_world_size(options.nproc_per_node)
    except (ValueError, RuntimeError) as error:
        refuse(str(error))
    is_file = not options.module and not options.no_python
    if is_file and not Path(options.training_script).is_file():
        raise UsageError(f"no script at {options.training_script}: check the path (now in {Path.cwd()})")
    return options


def _put_worker_in_front(options: argparse.Namespace, replace: str | None) -> None:
    """Change what torchrun starts from the script to our worker, which runs the script."""
    if options.no_python:
        if replace:
            raise UsageError(
                "--replace works inside Python workers: drop --no-python, or set the backend yourself"
            )
        return
    words = ["--replace", replace] if replace else []
    words += ["-m"] if options.module else []
    options.training_script_args = [*words, options.training_script, *options.training_script_args]
    options.training_script = "thinwire.cli.worker"
    options.module = True
    options.run_path = False


def _run_to_the_end(options: argparse.Namespace) -> int:
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError

    try:
        _import_torchrun().run(options)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        ended = failure.signal_name() if failure.exitcode < 0 else f"exit status {failure.exitcode}"
        raise ThinwireError(f"rank {rank} failed first ({ended}); what it said is above") from error
    except (RendezvousError, DistError) as error:
        endpoint = options.rdzv_endpoint or f"{options.master_addr}:{options.master_port}"
        raise LinkError(
            f"no rendezvous at {endpoint}: {error}; check the address, the port, and that the other hosts run"
        ) from error
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0
