"""Calibration measures each codec once for each machine and version, and survives a broken cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.planner.codecs import Sized
from thinwire.clock import SYSTEM_CLOCK
from thinwire.codec.base import Codec
from thinwire.training import calibration
from thinwire.training.calibration import cache_folder, calibrated, gradient_like


class Ticks:
    """A clock that goes on by a millisecond whenever it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def now_s(self) -> float:
        self.now += 1e-3
        return self.now


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The codecs that were measured, not remembered."""
    names: list[str] = []
    measure = calibration.measure

    def noting(codec: Codec, *arguments: object) -> object:
        names.append(str(codec))
        return measure(codec, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(calibration, "measure", noting)
    return names


def test_a_codec_is_measured_once(tmp_path: Path, measured: list[str]) -> None:
    first = calibrated([Sized(4), Sized(2)], Ticks(), tmp_path)
    again = calibrated([Sized(2), Sized(4)], Ticks(), tmp_path)
    assert measured == [str(Sized(4)), str(Sized(2))]
    assert again == first[::-1]
    assert first[0].error == pytest.approx(1.0)  # it sends zeros
    assert first[0].encode_s_per_value == pytest.approx(1e-3 / calibration.NUM_VALUES)


def test_a_codec_that_is_new_is_measured_beside_the_known(tmp_path: Path, measured: list[str]) -> None:
    calibrated([Sized(4)], Ticks(), tmp_path)
    calibrated([Sized(4), Sized(8)], Ticks(), tmp_path)
    assert measured == [str(Sized(4)), str(Sized(8))]


def test_another_machine_measures_anew(
    tmp_path: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrated([Sized(4)], Ticks(), tmp_path)
    monkeypatch.setattr(calibration, "machine", lambda: "another")
    calibrated([Sized(4)], Ticks(), tmp_path)
    assert len(measured) == 2


@pytest.mark.parametrize("garbage", [b"", b"\xff\x00", b'{"a": 3}', b"[1, 2"])
def test_a_broken_cache_is_replaced(tmp_path: Path, measured: list[str], garbage: bytes) -> None:
    (tmp_path / "codecs.json").write_bytes(garbage)
    calibrated([Sized(4)], Ticks(), tmp_path)
    calibrated([Sized(4)], Ticks(), tmp_path)
    assert len(measured) == 1


def test_a_folder_that_cannot_be_written_to_is_no_reason_to_fail(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    assert calibrated([Sized(4)], Ticks(), blocked)[0].codec == Sized(4)


def test_the_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "thinwire"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "thinwire"


def test_a_real_clock_and_a_real_sample(tmp_path: Path) -> None:
    form = calibrated([Sized(8)], SYSTEM_CLOCK, tmp_path)[0]
    assert 0 < form.encode_s_per_value < 1e-6
    assert gradient_like(1000).shape == (1000,)
