"""Labs with real processes in them: what they see, how they end, and that nothing is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from thinwire.errors import UsageError
from thinwire.lab import Lab, Scenario, namespaces, state

pytestmark = pytest.mark.system

SOURCE = Path(__file__).parents[2] / "src"
PROGRAM = (sys.executable, "-m", "thinwire", "lab")
PLAIN = Scenario(summary="two hosts, no limit", hosts=2)


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))


@pytest.fixture(scope="module", autouse=True)
def _permitted() -> None:
    try:
        with Lab(PLAIN):
            pass
    except UsageError as error:
        pytest.skip(str(error))


def command_line(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, timeout=30)


def output_of(lab: Lab, host: str, *command: str) -> str:
    with lab.popen(host, command, stdout=subprocess.PIPE) as process:
        return process.communicate(timeout=20)[0].decode()


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_a_host_knows_its_name_its_rank_and_its_peers() -> None:
    program = (
        "import os, socket; print(socket.gethostname(), os.environ['RANK'], socket.gethostbyname('host0'))"
    )
    with Lab(PLAIN) as lab:
        assert output_of(lab, "host1", sys.executable, "-c", program) == "host1 1 10.77.0.1\n"


def test_two_labs_do_not_know_of_each_other() -> None:
    with Lab(PLAIN) as first, Lab(PLAIN) as second:
        assert first.record.name != second.record.name
        assert set(state.running()) == {first.record.name, second.record.name}
        assert output_of(first, "host0", "ls", "/sys/class/net") == "eth0\nlo\n"
        where = [output_of(lab, "host0", "readlink", "/proc/self/ns/net") for lab in (first, second)]
        assert where[0] != where[1]


def test_a_closed_lab_takes_its_processes_along() -> None:
    with Lab(PLAIN) as lab:
        process = lab.popen("host0", ["sh", "-c", "sleep 1000 & echo up; sleep 1000"], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
    with process:
        assert process.wait(10) == 128 + signal.SIGKILL
        assert process.stdout.read() == b""  # the one in the background has let go of it as well
    assert state.running() == {}


def own_network() -> list[object]:
    """What the lab promises to leave alone: this machine's devices, addresses, routes, queues and TCP settings."""
    keys = ("IFLA_IFNAME", "IFLA_MTU", "IFLA_ADDRESS", "IFLA_QDISC", "IFLA_GSO_MAX_SIZE", "IFLA_GSO_MAX_SEGS")
    with IPRoute() as control:
        return [
            [[link["flags"], *map(link.get_attr, keys)] for link in control.get_links()],
            [(row["index"], row.get_attr("IFA_ADDRESS")) for row in control.get_addr()],
            sorted(
                str([row["table"], *map(row.get_attr, ("RTA_DST", "RTA_OIF", "RTA_GATEWAY", "RTA_METRICS"))])
                for row in control.get_routes(family=socket.AF_INET)
            ),
            [(row["index"], row.get_attr("TCA_KIND")) for row in control.get_qdiscs()],
            [
                (path.name, path.read_text())
                for path in sorted(Path("/proc/sys/net/ipv4").glob("tcp_*"))
                if path.name.startswith(("tcp_congestion", "tcp_allowed", "tcp_rmem", "tcp_wmem"))
            ],
            Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").read_text(),
            socket.gethostname(),
            Path("/etc/hosts").read_text(),
        ]


@pytest.mark.parametrize("name", ["wan-1g-100ms", "two-sites", "flapping", "mobile"])
def test_the_machines_own_network_stays_as_it_is(name: str) -> None:
    before = own_network()
    with Lab(name, congestion_control="reno") as lab:
        assert own_network() == before
        assert output_of(lab, "host0", "hostname") == "host0\n"
    assert own_network() == before


def test_run_shows_each_line_with_its_host_and_ends_with_the_first_failure() -> None:
    done = command_line("run", "lan-1g", "--hosts", "2", "--", "sh", "-c", "echo $RANK; exit $((RANK * 3))")
    assert sorted(done.stdout.splitlines()) == ["host0| 0", "host1| 1"]
    assert done.stderr == "the command failed on host1 with 3\n"
    assert done.returncode == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_run_leaves_nothing_behind_when_interrupted_or_killed(number: int) -> None:
    command = [*PROGRAM, "run", "lan-1g", "--hosts", "2", "--", "sh", "-c", "echo up; exec sleep 1000"]
    # A shell that runs the tests in the background has them, and all that they start, ignore Ctrl-C.
    command = ["env", "--default-signal=INT", *command]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().endswith("| up\n")
        [record] = state.running().values()
        process.send_signal(number)
    assert wait_until(lambda: state.start_ticks(record.keeper_pid) is None)
    assert state.running() == {}


def test_a_killed_keeper_is_swept_up() -> None:
    with Lab(PLAIN) as lab:
        os.kill(lab.record.keeper_pid, signal.SIGKILL)
        assert wait_until(lambda: state.start_ticks(lab.record.keeper_pid) is None)
        assert len(list(state.directory().iterdir())) == 1
        assert state.running() == {}
        assert list(state.directory().iterdir()) == []


def test_up_exec_and_down() -> None:
    assert command_line("up", "lan-1g", "--name", "mine").stdout == "mine\n"
    execution = command_line("exec", "host2", "--", "sh", "-c", "echo $THINWIRE_LAB_HOST; exit 5")
    assert (execution.stdout, execution.returncode) == ("host2\n", 5)
    assert "host3" in command_line("status").stdout
    assert command_line("down").returncode == 0
    assert command_line("status").stdout == "no lab runs\n"


@pytest.mark.parametrize(
    "name", Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
)
def test_tcp_uses_the_congestion_control_asked_for_whether_or_not_the_machine_allows_it_to_all(
    name: str,
) -> None:
    program = (
        "import os, socket, sys\n"
        "with socket.create_server(('', 0)) as server:\n"
        "    address = os.environ['THINWIRE_LAB_ADDRESS'], server.getsockname()[1]\n"
        "    print(*address, flush=True)\n"
        "    peer = server.accept()[0]\n"
        "print(peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b'\\0').decode())\n"
    )
    answer = (
        "import socket, sys\n"
        "peer = socket.create_connection(sys.argv[1:])\n"
        "print(peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b'\\0').decode())\n"
    )
    with (
        Lab(PLAIN, congestion_control=name) as lab,
        lab.popen("host0", [sys.executable, "-c", program], stdout=subprocess.PIPE) as server,
    ):
        assert server.stdout is not None
        address = server.stdout.readline().decode().split()
        assert output_of(lab, "host1", sys.executable, "-c", answer, *address) == f"{name}\n"
        assert server.stdout.read() == f"{name}\n".encode()


def test_a_congestion_control_that_nobody_has_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"no congestion control 'pigeon' here; this kernel offers .*reno"):
        Lab(PLAIN, congestion_control="pigeon").start()
    assert state.running() == {}


def process_namespace(pid: int | str) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return None


def lives(namespace: str) -> bool:
    """Whether any process of a lab is left, by its process namespace."""
    return any(process_namespace(pid) == namespace for pid in os.listdir("/proc") if pid.isdecimal())


def test_what_kill_leaves_of_a_run_is_cleaned_up_by_a_later_run() -> None:
    """The run, the keeper's watcher and the keeper are killed at once, so that nobody can clean up."""
    command = [*PROGRAM, "run", "home", "--hosts", "2", "--", "sh", "-c", "echo up; exec sleep 1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().endswith("| up\n")
        [record] = state.running().values()
        namespace = process_namespace(record.keeper_pid)
        assert namespace is not None
        os.kill(record.keeper_pid, signal.SIGKILL)
        process.kill()
    assert wait_until(lambda: not lives(namespace))
    assert [path.name for path in state.directory().iterdir()] == ["home"]
    (state.directory() / f".{record.keeper_pid}").mkdir()  # as of one killed while it wrote its record
    later = command_line("run", "lan-1g", "--hosts", "2", "--", "true")
    assert (later.returncode, later.stderr) == (0, "")
    assert list(state.directory().iterdir()) == []


@pytest.mark.parametrize("whom", ["run", "keeper"])
def test_a_kill_in_the_middle_of_building_leaves_no_process_and_no_network(whom: str) -> None:
    command = [*PROGRAM, "run", "lan-1g", "--hosts", "120", "--", "true"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert wait_until(lambda: bool(state.running()))
        [record] = state.running().values()
        assert record.hosts == ()  # still building
        namespace = process_namespace(record.keeper_pid)
        assert namespace is not None
        os.kill(process.pid if whom == "run" else record.keeper_pid, signal.SIGKILL)
        process.wait(30)
        assert process.returncode != 0
    assert wait_until(lambda: not lives(namespace), timeout_s=60)
    assert state.running() == {}
    assert list(state.directory().iterdir()) == []


def test_what_cannot_be_built_is_taken_down_again() -> None:
    """A host's namespace and devices stand already when its TCP cannot be set up."""
    before = own_network(), sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(UsageError, match="pigeon"):
        Lab("wan-100m-50ms", congestion_control="pigeon").start()
    assert (own_network(), sorted(os.listdir("/proc/self/fd"))) == before
    assert list(state.directory().iterdir()) == []


def test_several_labs_that_start_at_once_do_not_take_each_others_names() -> None:
    command = [*PROGRAM, "run", "lan-1g", "--hosts", "2", "--", "sh", "-c", "echo $THINWIRE_LAB"]
    runs = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    answers = [run.communicate(timeout=60) for run in runs]
    assert [error for _, error in answers] == [""] * 4
    assert all(len(set(output.split())) == 3 for output, _ in answers)  # host0|, host1| and one name
    assert list(state.directory().iterdir()) == []


def test_a_name_that_is_taken_or_no_name_is_refused() -> None:
    with Lab(PLAIN, name="mine"), pytest.raises(UsageError, match="'mine' runs already"):
        Lab(PLAIN, name="mine").start()
    for name in ("", "../x", ".hidden", "two words"):
        with pytest.raises(UsageError, match="cannot be a lab's name"):
            Lab(PLAIN, name=name)


def test_a_script_for_torchrun_runs_unchanged_over_gloo(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import torch, torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        "numbers = torch.full((1000,), float(dist.get_rank() + 1))\n"
        "dist.all_reduce(numbers)\n"
        "print(int(numbers.sum()), dist.get_world_size())\n"
        "dist.destroy_process_group()\n"
    )
    done = subprocess.run(
        [*PROGRAM, "run", "office-100m", "--hosts", "2", "--", sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["host0| 3000 2", "host1| 3000 2"]


def become_unprivileged(most_user_namespaces: int | None) -> None:
    """Make this process a user without privileges on this machine, by a user namespace around it.

    The limit holds in that namespace only.
    """
    user, group = os.geteuid(), os.getegid()
    namespaces.unshare(namespaces.NEW_USER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"1234 {user} 1")
    Path("/proc/self/gid_map").write_text(f"1234 {group} 1")
    if most_user_namespaces is not None:
        Path("/proc/sys/user/max_user_namespaces").write_text(str(most_user_namespaces))


def run_unprivileged(
    scenario: str, command: str, *, most_user_namespaces: int | None = None
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [*PROGRAM, "run", scenario, "--hosts", "2", "--", "sh", "-c", command],
            capture_output=True,
            text=True,
            timeout=60,
            preexec_fn=lambda: become_unprivileged(most_user_namespaces),
        )
    except subprocess.SubprocessError as error:
        pytest.skip(f"no user namespaces here: {error}")


@pytest.mark.parametrize("scenario", ["lan-1g", "home"])
def test_user_namespaces_are_enough(scenario: str) -> None:
    done = run_unprivileged(scenario, "id -u; ls /sys/class/net; getent hosts host1 | cut -d' ' -f1")
    assert done.returncode == 0, done.stderr
    for host in ("host0", "host1"):
        lines = [line for line in done.stdout.splitlines() if line.startswith(host)]
        assert lines == [f"{host}| {line}" for line in ("1234", "eth0", "lo", "10.77.0.2")]
    assert list(state.directory().parent.rglob("*.json")) == []


def test_with_neither_root_nor_user_namespaces_one_line_says_so() -> None:
    done = run_unprivileged("lan-1g", "true", most_user_namespaces=0)
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "needs root or unprivileged user namespaces, and has neither" in done.stderr
