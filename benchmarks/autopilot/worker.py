"""One rank of a run, inside a host of the lab. Rank 0 prints a line now and then, and at the end the run as JSON.

Needs only torch and what its way needs, because the ways of others run in environments without thinwire.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.autopilot.models import TASKS, loss_of, quality_of, rate
from benchmarks.autopilot.ways import WAYS, Training

SENT_BYTES = Path("/sys/class/net/eth0/statistics/tx_bytes")
START_UP_S = 60.0  # beside the training itself: a run that takes longer hangs


class Record:
    """What happened in each step of this rank: seconds since the first began, bytes sent since then, loss."""

    def __init__(self) -> None:
        self.ends_s: list[float] = []
        self.sent_bytes: list[int] = []
        self.losses: list[float] = []
        self._begun_s = time.monotonic()
        self._bytes_before = int(SENT_BYTES.read_text())

    def add(self, loss: float) -> None:
        self.ends_s.append(round(time.monotonic() - self._begun_s, 4))
        self.sent_bytes.append(int(SENT_BYTES.read_text()) - self._bytes_before)
        self.losses.append(round(loss, 4))

    def leave_out(self, seconds: float) -> None:
        """The benchmark's own messages are not training."""
        self._begun_s += seconds


def train(training: Training, task: Any, order: dict[str, Any]) -> Record:
    """Up to ``order["steps"]`` steps of a recipe of ``order["num_steps"]``, or until ``order["seconds"]`` are over."""
    generator = torch.Generator().manual_seed(1000 * order["seed"] + dist.get_rank())
    highest = [group["lr"] for group in training.optimizer.param_groups]
    is_over, next_check = torch.zeros(2), 2
    dist.barrier()
    record = Record()
    for step in range(1, order["steps"] + 1):
        for group, learning_rate in zip(training.optimizer.param_groups, highest, strict=True):
            group["lr"] = learning_rate * rate(step, order["num_steps"])
        loss = loss_of(training.model, task.batch(generator))
        training.optimizer.zero_grad()
        loss.backward()
        training.optimizer.step()
        record.add(loss.item())
        if training.link is not None:
            training.link.observe_loss(loss.item())
        if step == next_check and step < order["steps"]:
            asked_s = time.monotonic()
            if dist.get_rank() == 0:
                done_s = record.ends_s[-1]
                print(
                    f"step {step}/{order['steps']}, {done_s / step * 1e3:.0f} ms, loss {loss.item():.3f}",
                    flush=True,
                )
                is_over[0] = done_s > order["seconds"]
                is_over[1] = min(20, max(1, 2 * step // max(1, round(done_s))))
            dist.broadcast(is_over, 0)
            next_check = step + int(is_over[1])
            record.leave_out(time.monotonic() - asked_s)
            if is_over[0]:
                break
    training.settle()
    return record


def _end_after(limit_s: float) -> None:
    """Tell where every thread is, and end this rank with all its children, which a run that hangs leaves behind."""
    faulthandler.dump_traceback_later(limit_s)
    last_resort = threading.Timer(limit_s + 1, os.killpg, (0, signal.SIGKILL))
    last_resort.daemon = True
    last_resort.start()


def main() -> None:
    order = json.loads(sys.argv[1])
    _end_after(order["seconds"] + START_UP_S)
    torch.set_num_threads(1)
    task = TASKS[order["model"]](order["seed"])
    with WAYS[order["way"]](task) as training:
        began_s = time.monotonic() - order["lab_began_s"]
        record = train(training, task, order)
        if dist.get_rank() == 0:
            quality = None
            if len(record.losses) == order["num_steps"]:
                torch.set_num_threads(2)
                quality = quality_of(task.network, task)
            report = training.link.report() if training.link is not None else None
            switches = report.switches if report else ()
            print(
                json.dumps(
                    {
                        "began_s": round(began_s, 3),
                        "ends_s": record.ends_s,
                        "sent_bytes": record.sent_bytes,
                        "losses": record.losses,
                        "quality": quality,
                        "plans": [
                            {"step": each.step, "forms": each.plan.forms, "reason": each.plan.reason}
                            for each in switches
                        ],
                        "sent_as": {form: sent[1] for form, sent in report.sent.items()} if report else {},
                    }
                ),
                flush=True,
            )
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
