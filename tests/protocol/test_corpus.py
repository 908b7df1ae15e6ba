"""What the fuzzer has found is replayed; nothing more of atheris is needed here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.protocol.fuzz_frames import one_input, seeds

CORPUS = sorted(Path(__file__).with_name("corpus").iterdir())


@pytest.mark.parametrize("data", [*seeds(), *(path.read_bytes() for path in CORPUS)])
def test_everything_is_accepted_or_a_protocol_error(data: bytes) -> None:
    one_input(data)


def test_there_is_a_corpus() -> None:
    assert len(CORPUS) > 20
