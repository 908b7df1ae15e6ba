"""The commands in one list, and the one place where errors become a line on stderr and an exit status.

Statuses: 0 done; 1 the job failed; 2 the user's mistake (a wrong option, a missing file, an unreachable host);
130 interrupted. Not here: what the commands do.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from thinwire.cli.bench_link import benchmarks
from thinwire.cli.compare import compare
from thinwire.cli.lab import app as lab
from thinwire.cli.probe import probe
from thinwire.cli.run import run
from thinwire.cli.schedule import schedule
from thinwire.errors import LinkError, ThinwireError, UsageError

app = typer.Typer(
    name="thinwire",
    help="Train PyTorch models over the network you have.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# Everything from the first word that is not an option of ours belongs to torchrun and to the script.
_PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}

app.command(
    context_settings=_PASS_THROUGH,
    options_metavar="[OPTIONS] [TORCHRUN OPTIONS] SCRIPT [ARGUMENTS]...",
)(run)
app.add_typer(lab, name="lab")
app.add_typer(benchmarks)
app.command()(schedule)
app.command(context_settings=_PASS_THROUGH, options_metavar="[OPTIONS] [TORCHRUN OPTIONS]")(probe)
app.command(
    context_settings=_PASS_THROUGH,
    options_metavar="[OPTIONS] SCRIPT [ARGUMENTS]...",
)(compare)


def _print_version(wanted: bool) -> None:
    if wanted:
        from thinwire import __version__

        print(f"thinwire {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The options of ``thinwire`` itself."""


def run_command_line() -> None:
    """Run the command in ``sys.argv`` and leave with its exit status."""
    sys.exit(_status())


def _status() -> int:
    try:
        return app(sys.argv[1:] or ["--help"], prog_name="thinwire", standalone_mode=False) or 0
    except typer.TyperException as error:
        return _complain(f"{error.format_message()} (`thinwire --help` lists commands and options)", 2)
    except (UsageError, LinkError) as error:
        return _complain(str(error), 2)
    except ThinwireError as error:
        return _complain(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        return 130


def _complain(message: str, status: int) -> int:
    print("thinwire:", " ".join(message.split()), file=sys.stderr)
    return status
