"""A chain's latest pointer: missing, damaged, another chain's."""

from __future__ import annotations

import pytest

from pipelines.bucket.read_latest import read_latest
from pipelines.stores.memory_store import MemoryStore
from schemas.errors import ManifestError, TransientStoreError
from schemas.published.latest_pointer import POINTER_BYTES_MAX, LatestPointer
from schemas.published.object_layout import latest_name
from tests.support.faulty_store import Fault, FaultyStore, scripted
from tests.support.stored_epochs import CHAIN_ID, epoch_layout

NAME = latest_name(CHAIN_ID)
POINTER = LatestPointer(CHAIN_ID, 1, epoch_layout(1).epoch_id, 1, "ab" * 32)


@pytest.fixture
def store(request: pytest.FixtureRequest) -> MemoryStore:
    """A folder of this test's own."""
    return MemoryStore(f"read_latest/{request.node.name}")


def test_what_was_put_is_read(store: MemoryStore) -> None:
    """And before that, there is none."""
    assert read_latest(store, CHAIN_ID) is None
    store.put(NAME, POINTER.to_bytes())
    assert read_latest(store, CHAIN_ID) == POINTER


@pytest.mark.parametrize("damage", [b"", b"{}", b"x" * (POINTER_BYTES_MAX + 1)])
def test_a_damaged_pointer_is_named(store: MemoryStore, damage: bytes) -> None:
    """By its place in the store."""
    store.put(NAME, damage)
    with pytest.raises(ManifestError) as caught:
        read_latest(store, CHAIN_ID)
    assert caught.value.where == f"{store.url}/{NAME}"


def test_a_pointer_of_another_chain_is_not_followed(store: MemoryStore) -> None:
    """It was copied to the wrong place."""
    store.put(latest_name("elsewhere"), POINTER.to_bytes())
    with pytest.raises(ManifestError, match=CHAIN_ID):
        read_latest(store, "elsewhere")


def test_a_store_that_fails_says_nothing_of_the_pointer(store: MemoryStore) -> None:
    """It is neither missing nor damaged."""
    store.put(NAME, POINTER.to_bytes())
    with pytest.raises(TransientStoreError):
        read_latest(FaultyStore(store, scripted({("get", 0): Fault.FAIL_BEFORE})), CHAIN_ID)
