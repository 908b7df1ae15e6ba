"""Ranks of a command: what rank 0 says arrives, what fails is raised, and nothing is left running."""

from __future__ import annotations

import multiprocessing
import os
from typing import Any

import pytest

from thinwire.cli.local_ranks import Say, words_of_rank_0
from thinwire.errors import PeerError, ThinwireError


def count(say: Say, request: int, init_method: str) -> None:
    for number in range(request):
        say((number, os.environ["RANK"], os.environ["WORLD_SIZE"]))


def fail_on_rank_1(say: Say, request: Any, init_method: str) -> None:
    say("before")
    if os.environ["RANK"] == "1":
        raise PeerError(0, "here", "on purpose")
    multiprocessing.Event().wait()


def exit_on_rank_1(say: Say, request: Any, init_method: str) -> None:
    if os.environ["RANK"] == "1":
        os._exit(7)
    multiprocessing.Event().wait()


def children_named(beginning: str) -> list[str]:
    return [child.name for child in multiprocessing.active_children() if child.name.startswith(beginning)]


def test_rank_0_is_heard_and_no_other() -> None:
    assert list(words_of_rank_0(count, 3, num_ranks=2)) == [(0, "0", "2"), (1, "0", "2"), (2, "0", "2")]


def test_what_a_rank_raises_is_raised_here_and_ends_the_others() -> None:
    with pytest.raises(PeerError, match="rank 0 on here: on purpose"):
        list(words_of_rank_0(fail_on_rank_1, None, num_ranks=3))
    assert not children_named("rank ")


def test_a_rank_that_just_ends_is_named() -> None:
    with pytest.raises(ThinwireError, match="rank 1 failed with status 7"):
        list(words_of_rank_0(exit_on_rank_1, None, num_ranks=2))
    assert not children_named("rank ")
