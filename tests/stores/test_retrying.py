"""Retries, over a store that fails by script and by seed."""

from __future__ import annotations

import random

import pytest

from pipelines.stores.memory_store import MemoryStore
from pipelines.stores.retrying import RetryingStore, RetryPolicy
from schemas.errors import ObjectExistsError, ObjectNotFoundError, TransientStoreError
from tests.support.faulty_store import Fault, FaultyStore, scripted, seeded
from tests.support.stored_bytes import stored_bytes

AT_ONCE = RetryPolicy(attempts_max=4, timeout_s=30, wait_first_s=0, wait_max_s=0, wait_jitter_s=0)


@pytest.fixture
def memory(request: pytest.FixtureRequest) -> MemoryStore:
    """A folder of this test's own."""
    return MemoryStore(f"retrying/{request.node.name}")


def test_a_lost_request_is_sent_again(memory: MemoryStore) -> None:
    """One fault of each method is not seen from outside."""
    faulty = FaultyStore(memory, scripted({(method, 0): Fault.FAIL_BEFORE for method in ("put", "get", "info", "list", "swap", "delete")}))
    store = RetryingStore(faulty, AT_ONCE)
    store.put("object", b"x", create_only=True)
    assert stored_bytes(store, "object") == b"x"
    assert store.info("object") == memory.info("object")
    assert [info.name for info in store.list()] == ["object"]
    store.swap("pointer", b"1", None)
    store.delete("object")
    assert [info.name for info in memory.list()] == ["pointer"]
    assert len(faulty.injected) == 6


def test_a_lost_reply_is_no_conflict(memory: MemoryStore) -> None:
    """A create-only put and a swap that were carried out without our knowing succeed at the second attempt."""
    store = RetryingStore(
        FaultyStore(memory, scripted({("put", 0): Fault.REPLY_LOST, ("swap", 0): Fault.REPLY_LOST, ("swap", 1): Fault.REPLY_LOST})), AT_ONCE
    )
    store.put("object", b"x", create_only=True)
    first = store.swap("pointer", b"1", None)
    assert store.swap("pointer", b"2", first) == memory.info("pointer")


def test_a_real_conflict_is_not_retried(memory: MemoryStore) -> None:
    """Only transient faults are tried again."""
    faulty = FaultyStore(memory, scripted({}))
    store = RetryingStore(faulty, AT_ONCE)
    memory.put("object", b"other")
    with pytest.raises(ObjectExistsError):
        store.put("object", b"x", create_only=True)
    with pytest.raises(ObjectNotFoundError):
        stored_bytes(store, "missing")
    assert faulty.calls == {"put": 1, "get": 1}


def test_attempts_are_bounded(memory: MemoryStore) -> None:
    """The last fault comes out once the attempts are used up."""
    faulty = FaultyStore(memory, lambda method, name, number: Fault.FAIL_BEFORE)
    with pytest.raises(TransientStoreError):
        RetryingStore(faulty, AT_ONCE).put("object", b"x")
    assert faulty.calls == {"put": AT_ONCE.attempts_max}


def test_ranges_of_an_opened_object_are_retried(memory: MemoryStore) -> None:
    """A fault in the middle of a read file is not seen by the reader."""
    memory.put("object", bytes(range(256)) * 20_000)
    store = RetryingStore(FaultyStore(memory, scripted({("get", number): Fault.FAIL_BEFORE for number in (0, 2, 4)})), AT_ONCE)
    with store.open("object") as file:
        assert file.read() == stored_bytes(memory, "object")


@pytest.mark.parametrize("seed", range(20))
def test_seeded_faults_never_lose_an_object(seed: int) -> None:
    """Under random lost requests and replies every put and swap that succeeded is there, in order."""
    memory = MemoryStore(f"retrying/seed/{seed}")
    store = RetryingStore(
        FaultyStore(memory, seeded(seed, rate=0.3)), RetryPolicy(attempts_max=40, wait_first_s=0, wait_max_s=0, wait_jitter_s=0)
    )
    choose = random.Random(seed)
    pointer = None
    for number in range(40):
        body = b"%d" % number
        store.put(f"object/{number}", body, create_only=True)
        if choose.random() < 0.5:
            pointer = store.swap("pointer", body, pointer)
            assert stored_bytes(memory, "pointer") == body
    assert [stored_bytes(memory, f"object/{number}") for number in range(40)] == [b"%d" % number for number in range(40)]


def test_torn_and_stale_faults_do_what_they_say(memory: MemoryStore) -> None:
    """The faults that stores promise never to have can be made for tests of their readers."""
    faulty = FaultyStore(memory, scripted({("put", 0): Fault.TORN, ("list", 0): Fault.STALE_LIST}))
    faulty.put("torn", b"12345678")
    faulty.put("whole", b"12345678")
    assert (stored_bytes(memory, "torn"), stored_bytes(memory, "whole")) == (b"1234", b"12345678")
    assert [info.name for info in faulty.list()] == ["torn"]
    assert [info.name for info in faulty.list()] == ["torn", "whole"]
