"""The command line: parse, call, print.

``thinwire --help`` and every command that needs no torch answer at once, because this package and its command
modules import nothing heavy until a command runs. Data goes to stdout, talk to stderr; a user's mistake is one line
and exit status 2.

Modules named ``worker`` or ``*_worker`` run inside the processes that a command starts; they may import torch.
"""

from __future__ import annotations


def main() -> None:
    """The console script ``thinwire``."""
    from thinwire.cli.app import run_command_line

    run_command_line()
