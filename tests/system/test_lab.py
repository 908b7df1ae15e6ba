"""Labs with real processes in them: what they see, how they end, and that nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from thinwire.errors import UsageError
from thinwire.lab import Lab, Scenario, state

pytestmark = pytest.mark.system

SOURCE = Path(__file__).parents[2] / "src"
PROGRAM = (sys.executable, "-m", "thinwire.cli.lab")
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


def test_the_machines_own_interfaces_stay_as_they_are() -> None:
    before = sorted(os.listdir("/sys/class/net"))
    with Lab(PLAIN):
        assert sorted(os.listdir("/sys/class/net")) == before


def test_run_shows_each_line_with_its_host_and_ends_with_the_first_failure() -> None:
    done = command_line("run", "lan-1g", "--hosts", "2", "--", "sh", "-c", "echo $RANK; exit $((RANK * 3))")
    assert sorted(done.stdout.splitlines()) == ["host0| 0", "host1| 1"]
    assert done.stderr == "the command failed on host1 with 3\n"
    assert done.returncode == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_run_leaves_nothing_behind_when_interrupted_or_killed(number: int) -> None:
    command = [*PROGRAM, "run", "lan-1g", "--hosts", "2", "--", "sh", "-c", "echo up; exec sleep 1000"]
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
