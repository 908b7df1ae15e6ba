"""The keeper: the one process that a lab is.

It is started in namespaces of its own, as process 1 of them, builds the network, and then only waits: until
it is told to go, or until its owner is gone (the pipe on its standard input closes). It holds every namespace
by a descriptor, and every process of the lab lives in its process namespace; so whatever ends it, be it
``kill -9``, the kernel takes down processes, namespaces, devices and queues with it. Nothing is left to clean
up but a record on disk.

Protocol: one JSON request on standard input, one JSON reply on standard output.

Not here: how a command gets into a host (``enter``).
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import traceback
from pathlib import Path

import msgspec

from thinwire.clock import SYSTEM_CLOCK
from thinwire.errors import ThinwireError, UsageError
from thinwire.lab import background, namespaces, state
from thinwire.lab.build import address_of, build
from thinwire.lab.changes import Changes
from thinwire.lab.messages import Reply, Request
from thinwire.lab.network import Network
from thinwire.lab.resolve import network_of
from thinwire.lab.state import LabHost, LabRecord


def main() -> None:
    """Read the request, fork into the new process namespace, and wait for the keeper there."""
    request = msgspec.json.decode(sys.stdin.buffer.readline(), type=Request)
    try:
        namespaces.isolate()
    except ThinwireError as error:
        _answer(Reply(mistake=str(error)))
        sys.exit(1)
    keeper = os.fork()
    if keeper == 0:
        os._exit(_keep(request))
    if not request.ends_with_owner:
        os._exit(0)
    os.close(sys.stdin.fileno())
    os.close(sys.stdout.fileno())
    _, status = os.waitpid(keeper, 0)
    sys.exit(os.waitstatus_to_exitcode(status) != 0)


def _answer(reply: Reply) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(reply) + b"\n")
    sys.stdout.buffer.flush()


def _keep(request: Request) -> int:
    """Be the lab, from beginning to end."""
    if request.ends_with_owner:
        namespaces.die_with_parent()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans come to process 1; the kernel buries them
    path: Path | None = None
    try:
        record, path = state.claim(_record(request), is_numbered=request.name is None)
        record, changes = _stand_up(request, record, path)
        _answer(Reply(record=record))
        _wait(changes, request.ends_with_owner)
    except UsageError as error:
        _answer(Reply(mistake=str(error)))
        return 1
    except SystemExit:
        return 0
    except BaseException:
        with contextlib.suppress(OSError):
            _answer(Reply(failure=traceback.format_exc()))
        return 1
    finally:
        if path is not None:
            shutil.rmtree(path, ignore_errors=True)
    return 0


def _record(request: Request) -> LabRecord:
    """The record of a lab that has no hosts yet."""
    own_pid = int(os.readlink("/proc/self"))  # as seen from outside: /proc is not yet that of the lab
    started = state.start_ticks(own_pid)
    assert started is not None
    return LabRecord(
        name=request.name or request.scenario_name,
        scenario=request.scenario_name,
        keeper_pid=own_pid,
        keeper_started=started,
        hosts=(),
        uses_relay=network_of(request.scenario).needs_relay,
    )


def _stand_up(request: Request, record: LabRecord, path: Path) -> tuple[LabRecord, Changes]:
    """Build everything and write down where it is."""
    scenario = request.scenario
    network = network_of(scenario)
    _furnish(path / state.HOSTS_FILE, network)
    fabric = build(network, scenario)
    relay = None
    if network.needs_relay:
        from thinwire.lab.relay import Relay  # here: it loads Numba, which kernel-only labs need not wait for

        relay = Relay(network, fabric.ports, scenario.seed)
        relay.start()
    for row in scenario.background:
        background.start(row, fabric)
    hosts = tuple(
        LabHost(name=name, address=address_of(host), namespace_fd=fabric.namespaces[host])
        for host, name in enumerate(network.hosts)
    )
    record = msgspec.structs.replace(record, hosts=hosts)
    state.write(path, record)
    return record, Changes(scenario, fabric, relay)


def _furnish(hosts_file: Path, network: Network) -> None:
    """Give the lab a /proc of its own and names for its hosts; where that is not allowed, it does without."""
    lines = ["127.0.0.1 localhost"]
    for host, name in enumerate(network.hosts):
        lines.append(f"{address_of(host)} {name}")
        # torch asks for the names of IPv4 peers of its IPv6 sockets; under a name of their own, so that
        # nobody who asks for the host gets this form of its address.
        lines.append(f"::ffff:{address_of(host)} {name}.mapped")
    hosts_file.write_text("\n".join([*lines, ""]))
    with contextlib.suppress(OSError):
        namespaces.mount("proc", Path("/proc"))
    with contextlib.suppress(OSError):
        namespaces.bind(hosts_file, Path("/etc/hosts"))


def _wait(changes: Changes, ends_with_owner: bool) -> None:
    """Make changes when they are due, until the owner is gone."""
    watched = [sys.stdin.fileno()] if ends_with_owner else []
    start_s = SYSTEM_CLOCK.now_s()
    while True:
        next_s = changes.make_until(SYSTEM_CLOCK.now_s() - start_s)
        timeout_s = None if next_s is None else max(0.0, start_s + next_s - SYSTEM_CLOCK.now_s())
        readable, _, _ = select.select(watched, [], [], timeout_s)
        if readable and not os.read(readable[0], 4096):
            return


if __name__ == "__main__":
    main()
