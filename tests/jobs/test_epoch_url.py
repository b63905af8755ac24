"""From a URL to the latest epoch of a chain."""

from __future__ import annotations

import pytest

from pipelines.bucket.locate_epoch import locate_epoch
from schemas.errors import EpochNotReadyError
from tests.support.productions import inject, new_store_url
from tests.support.stored_epochs import CHAIN_ID, epoch_layout, publish_epoch


def test_a_chain_that_is_named_is_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pointer has one name, and its epochs may be very many objects."""
    url = new_store_url()
    publish_epoch(url, 3)
    assert locate_epoch(url)[1] == epoch_layout(3)

    def refuse(method: str, _name: str, _number: int) -> None:
        assert method != "list"

    inject(monkeypatch, url, refuse)
    assert locate_epoch(f"{url}/chain_id={CHAIN_ID}") == (url, epoch_layout(3))
    with pytest.raises(EpochNotReadyError):
        locate_epoch(f"{url}/chain_id=other")
