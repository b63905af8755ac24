"""From a URL to the latest epoch of a chain."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobs.epoch_url import locate_epoch
from pipelines.stores.memory_store import MemoryStore
from pipelines.stores.store import ObjectInfo
from schemas.errors import EpochNotReadyError
from tests.support.productions import new_store_url
from tests.support.stored_epochs import CHAIN_ID, epoch_layout, publish_epoch


def test_a_chain_that_is_named_is_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pointer has one name, and its epochs may be very many objects."""
    url = new_store_url()
    publish_epoch(url, 3)
    assert locate_epoch(url)[1] == epoch_layout(3)

    def refuse(self: MemoryStore, prefix: str = "") -> Iterator[ObjectInfo]:
        raise AssertionError("listed")

    monkeypatch.setattr(MemoryStore, "list", refuse)
    assert locate_epoch(f"{url}/chain_id={CHAIN_ID}") == (url, epoch_layout(3))
    with pytest.raises(EpochNotReadyError):
        locate_epoch(f"{url}/chain_id=other")
