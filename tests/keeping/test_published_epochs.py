"""Which epochs a scrub chooses."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.keeping.scrub_chain import published_epochs
from pipelines.stores.open_store import open_store
from schemas.errors import EpochNotReadyError
from tests.support.stored_epochs import CHAIN_ID, epoch_layout, publish_epoch


def test_epochs_are_chosen_by_height_id_or_pointer(tmp_path: Path) -> None:
    """Newest first, each once."""
    url = str(tmp_path / "store")
    for epoch_height in (1, 2, 3):
        publish_epoch(url, epoch_height)
    store = open_store(url)

    def chosen(*selectors: str) -> list[int]:
        return [layout.epoch_height for layout in published_epochs(store, CHAIN_ID, selectors)]

    assert chosen() == [3, 2, 1]
    assert chosen("latest", str(epoch_layout(1).epoch_id), "3") == [3, 1]
    with pytest.raises(EpochNotReadyError):
        chosen("7")
    with pytest.raises(EpochNotReadyError):
        published_epochs(store, "mainnet", ())
