"""How ranks meet: the secret, the contacts, the group's id; and the endpoint they share once they have."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import HashStore, PrefixStore

from thinwire.errors import CollectiveTimeoutError, UsageError
from thinwire.runtime import shared_endpoint
from thinwire.runtime.rendezvous import SECRET_VARIABLE, Meeting, job_secret, meet
from thinwire.transport.base import Contact

SECRET = "a secret of the whole job, long enough"


def contact(name: str) -> Contact:
    return Contact(endpoint=name, host="host", host_key="key", addresses={})


def meet_all(store: HashStore, names: str) -> list[Meeting]:
    with ThreadPoolExecutor(len(names)) as pool:
        return list(
            pool.map(
                lambda rank: meet(store, rank, len(names), contact(names[rank]), timedelta(seconds=20)),
                range(len(names)),
            )
        )


def names_of(meeting: Meeting) -> str:
    return "".join(found.endpoint for found in meeting.contacts)


def test_all_agree() -> None:
    meetings = meet_all(HashStore(), "abc")
    assert meetings == [meetings[0]] * 3
    assert names_of(meetings[0]) == "abc"
    assert 0 < meetings[0].group < 2**64


def test_what_an_earlier_group_left_is_not_read() -> None:
    store = HashStore()
    first, second = meet_all(store, "abc")[0], meet_all(store, "xyz")[0]
    assert names_of(second) == "xyz"
    assert second.group != first.group


def test_who_does_not_come_is_named() -> None:
    store = PrefixStore("group/", HashStore())
    with pytest.raises(CollectiveTimeoutError, match=r"rank 0, 2 of 3 did not join the group within 0\.05 s"):
        meet(store, 1, 3, contact("b"), timedelta(seconds=0.05))


def test_derived_ids_differ_by_purpose() -> None:
    meeting = Meeting((contact("a"), contact("b")), 7)
    assert meeting.derive("split 1") == Meeting((), 7).derive("split 1")
    assert len({meeting.group, meeting.derive("split 1"), meeting.derive("split 2")}) == 3
    assert names_of(meeting.subset([1], 9)) == "b"


def test_the_first_to_come_makes_the_secret_of_all_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SECRET_VARIABLE, raising=False)
    store = HashStore()
    secrets = {job_secret(PrefixStore(f"{group}/", PrefixStore("default/", store))) for group in range(3)}
    assert len(secrets) == 1
    assert len(secrets.pop()) == 32
    assert job_secret(HashStore()) not in secrets


def test_a_secret_from_the_environment_stays_out_of_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)
    store = HashStore()
    assert job_secret(store) == SECRET.encode()
    assert all(SECRET.encode() not in store.get(key) for key in store.list_keys())


@pytest.mark.parametrize(("first", "second"), [(None, SECRET), (SECRET, None)])
def test_a_secret_for_some_only_is_a_mistake(
    monkeypatch: pytest.MonkeyPatch, first: str | None, second: str | None
) -> None:
    store = HashStore()
    for value in (first, second):
        if value is None:
            monkeypatch.delenv(SECRET_VARIABLE, raising=False)
        else:
            monkeypatch.setenv(SECRET_VARIABLE, value)
        if value is first:
            job_secret(store)
    with pytest.raises(UsageError, match=r"THINWIRE_SECRET is set for .* but not for "):
        job_secret(store)


def test_one_endpoint_a_job_closed_by_the_last() -> None:
    first = shared_endpoint.acquire(b"x" * 32)
    assert shared_endpoint.acquire(b"x" * 32) is first
    other_job = shared_endpoint.acquire(b"y" * 32)
    assert other_job is not first
    shared_endpoint.release(first)
    assert shared_endpoint.acquire(b"x" * 32) is first
    for endpoint in (first, first, other_job):
        shared_endpoint.release(endpoint)
    again = shared_endpoint.acquire(b"x" * 32)
    assert again is not first
    shared_endpoint.release(again)


def test_a_forked_child_has_no_endpoint() -> None:
    endpoint = shared_endpoint.acquire(b"x" * 32)
    if os.fork() == 0:
        shared_endpoint._close_all()  # what the child does as it ends: nothing, or the parent would be cut off
        os._exit(len(shared_endpoint._open))
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
    assert shared_endpoint.acquire(b"x" * 32) is endpoint
    shared_endpoint.release(endpoint)
    shared_endpoint.release(endpoint)
