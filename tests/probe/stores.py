"""A key-value store between threads, with the methods and the failures of torch's."""

from __future__ import annotations

import threading
from datetime import timedelta


class ThreadStore:
    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        self._changed = threading.Condition()
        self.is_down = False

    def set(self, key: str, value: str) -> None:
        with self._changed:
            self._check_up()
            self._values[key] = value
            self._changed.notify_all()

    def get(self, key: str) -> bytes:
        with self._changed:
            self._check_up()
            return self._values[key].encode()

    def add(self, key: str, amount: int) -> int:
        with self._changed:
            self._check_up()
            total = int(self._values.get(key, "0")) + amount
            self._values[key] = str(total)
            return total

    def check(self, keys: list[str]) -> bool:
        with self._changed:
            self._check_up()
            return all(key in self._values for key in keys)

    def wait(self, keys: list[str], timeout: timedelta) -> None:
        with self._changed:
            self._check_up()
            if not self._changed.wait_for(lambda: set(keys) <= set(self._values), timeout.total_seconds()):
                raise RuntimeError("wait timeout")

    def delete_key(self, key: str) -> bool:
        with self._changed:
            return self._values.pop(key, None) is not None

    def _check_up(self) -> None:
        if self.is_down:
            raise RuntimeError("connection refused")
