"""``thinwire lab``: emulated networks on this machine.

Not here: anything but parsing, calling and printing; the work is done in ``thinwire.lab``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from thinwire.lab.state import LabRecord

app = typer.Typer(
    help="Emulated networks on this machine, for any program.", no_args_is_help=True, add_completion=False
)

ScenarioArgument = Annotated[
    str, typer.Argument(help="A shipped scenario (see: thinwire lab list), or a .toml file.")
]
CommandArgument = Annotated[
    list[str], typer.Argument(help="The command, after --.", metavar="-- COMMAND ...")
]
HostsOption = Annotated[
    int | None, typer.Option("--hosts", help="Instead of the scenario's number of hosts.")
]
CongestionOption = Annotated[
    str | None,
    typer.Option("--congestion-control", help="TCP's, on all hosts: cubic, bbr, ... Default: the machine's."),
]
NameOption = Annotated[
    str | None, typer.Option("--name", help="What to call the lab. Default: after the scenario.")
]


@app.command("run")
def run(
    scenario: ScenarioArgument,
    command: CommandArgument,
    hosts: HostsOption = None,
    congestion_control: CongestionOption = None,
    name: NameOption = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Leave the other hosts alone when the command fails on one.")
    ] = False,
) -> None:
    """Build the network, run COMMAND on every host, show what they print, take everything down.

    Each host gets RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, GLOO_SOCKET_IFNAME and THINWIRE_LAB_HOST, so
    that a script written for torchrun runs unchanged. The exit status is the first that is not 0.
    """
    from thinwire.lab.lab import Lab
    from thinwire.lab.run import run_everywhere

    with Lab(scenario, name=name, num_hosts=hosts, congestion_control=congestion_control) as lab:
        statuses = run_everywhere(lab.record, command, keep_going=keep_going)
    failed = {host: status for host, status in statuses.items() if status}
    if failed:
        listed = ", ".join(f"{host} with {status}" for host, status in failed.items())
        typer.echo(f"the command failed on {listed}", err=True)
        raise typer.Exit(next(iter(failed.values())))


@app.command("up")
def up(
    scenario: ScenarioArgument,
    hosts: HostsOption = None,
    congestion_control: CongestionOption = None,
    name: NameOption = None,
) -> None:
    """Build the network and leave it standing; print its name."""
    from thinwire.lab.lab import Lab

    lab = Lab(scenario, name=name, num_hosts=hosts, congestion_control=congestion_control)
    typer.echo(lab.start(ends_with_owner=False).name)


@app.command("exec", context_settings={"ignore_unknown_options": True})
def execute(
    host: Annotated[str, typer.Argument(help="The host.")],
    command: CommandArgument,
    name: Annotated[str | None, typer.Option("--name", help="Which lab, if several run.")] = None,
) -> None:
    """Run COMMAND inside one host of a lab that is up."""
    from thinwire.lab.lab import popen

    process = popen(_find(name), host, command)
    while True:
        try:
            raise typer.Exit(process.wait())
        except KeyboardInterrupt:  # the command got it as well, and decides
            continue


@app.command("status")
def status(json_output: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Show the labs that run."""
    import msgspec
    from rich.console import Console
    from rich.table import Table

    from thinwire.lab import state

    labs = state.running()
    if json_output:
        typer.echo(msgspec.json.encode(list(labs.values())))
        return
    if not labs:
        typer.echo("no lab runs")
        return
    table = Table("lab", "scenario", "host", "address", "packets pass")
    for lab in labs.values():
        for index, host in enumerate(lab.hosts):
            shown = (lab.name, lab.scenario) if index == 0 else ("", "")
            passing = ("the relay" if lab.uses_relay else "the kernel only") if index == 0 else ""
            table.add_row(*shown, host.name, host.address, passing)
    Console().print(table)


@app.command("down")
def down(
    name: Annotated[str | None, typer.Argument(help="Which lab, if several run.")] = None,
    all_labs: Annotated[bool, typer.Option("--all", help="All of this user's.")] = False,
) -> None:
    """Take a lab down, with everything that runs in it."""
    from thinwire.lab import state
    from thinwire.lab.lab import take_down

    for lab in state.running().values() if all_labs else [_find(name)]:
        take_down(lab)


@app.command("list")
def list_scenarios() -> None:
    """List the scenarios that come with thinwire."""
    from rich.console import Console
    from rich.table import Table

    from thinwire.lab import library

    table = Table("scenario", "hosts", "what it is")
    for name, scenario in library.shipped().items():
        table.add_row(name, str(len(scenario.host_names)), scenario.summary)
    Console().print(table)


def _find(name: str | None) -> LabRecord:
    """The lab called so, or the only one."""
    from thinwire.errors import UsageError
    from thinwire.lab import state

    labs = state.running()
    if name is None and len(labs) == 1:
        return next(iter(labs.values()))
    if name in labs:
        return labs[name]
    known = ", ".join(labs) or "none"
    raise UsageError(f"which lab? {'--name is needed' if name is None else repr(name)}; there are {known}")


if __name__ == "__main__":
    app()
