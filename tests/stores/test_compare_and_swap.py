"""An object that several writers change: no change is lost, and a writer that never wins gives up."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines.stores.compare_and_swap import SWAP_ATTEMPTS_MAX, WAIT_FIRST_S, WAIT_MAX_S, swapped
from pipelines.stores.memory_store import MemoryStore
from pipelines.stores.open_store import open_store
from pipelines.stores.store import ObjectInfo, Store
from schemas.errors import ObjectExistsError
from tests.support.faulty_store import FaultyStore
from tests.support.productions import meanwhile
from tests.support.stored_bytes import stored_bytes

NAME = "folder/object"


@pytest.fixture
def store(request: pytest.FixtureRequest) -> MemoryStore:
    """A folder of this test's own."""
    return MemoryStore(f"compare_and_swap/{request.node.name}")


def adding(store: Store, letter: bytes) -> Callable[[ObjectInfo | None], tuple[bytes, bytes]]:
    """A change that appends a letter to what is there."""

    def added(info: ObjectInfo | None) -> tuple[bytes, bytes]:
        made = (b"" if info is None else stored_bytes(store, NAME)) + letter
        return made, made

    return added


def test_an_object_is_made_then_changed(store: MemoryStore) -> None:
    """The change is made from what is there, and its result is returned."""
    assert [swapped(store, NAME, adding(store, letter)) for letter in (b"a", b"b")] == [b"a", b"ab"]
    assert stored_bytes(store, NAME) == b"ab"


def test_a_change_to_nothing_leaves_the_object_as_it_is(store: MemoryStore) -> None:
    """Not even the same bytes are written."""
    store.put(NAME, b"x")
    watched = FaultyStore(store, lambda *_: None)
    assert swapped(watched, NAME, lambda info: (None, info), read_back=True) == store.info(NAME)
    assert watched.calls == {"info": 1}


@pytest.mark.parametrize("there", [False, True])
def test_a_lost_race_is_run_again_on_what_the_other_left(store: MemoryStore, there: bool) -> None:
    """After one pause, whether the object is made or replaced."""
    if there:
        store.put(NAME, b"x")
    rival = meanwhile("swap" if there else "put", NAME, lambda: swapped(store, NAME, adding(store, b"o")))
    pauses_s: list[float] = []
    assert swapped(FaultyStore(store, rival), NAME, adding(store, b"a"), sleep=pauses_s.append) == stored_bytes(store, NAME)
    assert stored_bytes(store, NAME) == (b"xoa" if there else b"oa")
    assert len(pauses_s) == 1 and 0 <= pauses_s[0] <= WAIT_FIRST_S


def test_who_never_wins_gives_up_with_what_to_do(store: MemoryStore) -> None:
    """After so many attempts with growing pauses; the error names the object."""
    store.put(NAME, b"x")
    rival = meanwhile("swap", NAME, lambda: swapped(store, NAME, adding(store, b"o")), times=1000)
    pauses_s: list[float] = []
    with pytest.raises(ObjectExistsError, match=f"in each of {SWAP_ATTEMPTS_MAX} attempts") as caught:
        swapped(FaultyStore(store, rival), NAME, adding(store, b"a"), sleep=pauses_s.append)
    assert (caught.value.where, bool(caught.value.remedy)) == (f"{store.url}/{NAME}", True)
    assert len(pauses_s) == SWAP_ATTEMPTS_MAX - 1
    assert all(pause_s <= min(WAIT_MAX_S, WAIT_FIRST_S * 2**attempt) for attempt, pause_s in enumerate(pauses_s))
    assert max(pauses_s) > WAIT_MAX_S / 4
    assert stored_bytes(store, NAME) == b"x" + b"o" * SWAP_ATTEMPTS_MAX


@pytest.mark.parametrize(("read_back", "expected"), [(False, b"a"), (True, b"oa")])
def test_what_is_read_back_other_is_a_lost_race(store: MemoryStore, read_back: bool, expected: bytes) -> None:
    """Where it is asked for: a writer without a comparison has written over it right after."""
    over = meanwhile("get", NAME, lambda: store.put(NAME, b"o"))
    swapped(FaultyStore(store, over), NAME, adding(store, b"a"), read_back=read_back, sleep=lambda _: None)
    assert stored_bytes(store, NAME) == expected


def test_no_change_of_many_writers_is_lost(tmp_path: Path) -> None:
    """Threads that each add a letter to one file: all are in it, each once."""
    letters = [bytes([number]) for number in range(ord("a"), ord("a") + 12)]
    stores = [open_store(str(tmp_path), durable=False) for _ in letters]
    with ThreadPoolExecutor(len(letters)) as executor:
        for future in [executor.submit(swapped, each, NAME, adding(each, letter)) for each, letter in zip(stores, letters, strict=True)]:
            future.result()
    assert sorted(stored_bytes(stores[0], NAME)) == sorted(b"".join(letters))
