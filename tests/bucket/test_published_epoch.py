"""Documents of a published epoch are read no further than the longest that there can be."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from pipelines.bucket.epoch_claim import Claimant
from pipelines.bucket.holder_process import this_holder
from pipelines.bucket.published_epoch import read_manifest, read_manifest_revision, read_statement
from pipelines.stores.memory_store import MemoryStore
from pipelines.stores.store import Store
from schemas.errors import ClaimedError, ManifestError
from schemas.ids import CryptoHash
from schemas.published.claim import CLAIM_BYTES_MAX
from schemas.published.dsse import ENVELOPE_BYTES_MAX
from schemas.published.object_layout import EpochLayout

LAYOUT = EpochLayout("testnet", 7, CryptoHash(bytes(range(32))))


@pytest.mark.parametrize(
    ("name", "read", "bytes_max"),
    [
        (LAYOUT.manifest, lambda store: read_manifest(store, LAYOUT), ENVELOPE_BYTES_MAX),
        (LAYOUT.manifest_revision(1), lambda store: read_manifest_revision(store, LAYOUT, 1), ENVELOPE_BYTES_MAX),
        (LAYOUT.shard_statement(0), lambda store: read_statement(store, LAYOUT, 0), ENVELOPE_BYTES_MAX),
        (LAYOUT.claim, lambda store: Claimant(store, LAYOUT, (0,), this_holder()).leases(store.info(LAYOUT.claim)), CLAIM_BYTES_MAX),
    ],
)
def test_no_more_is_read_than_a_document_can_have(name: str, read: Callable[[Store], object], bytes_max: int) -> None:
    """Whatever was put there: one byte more shows that it is too long."""
    asked: list[int] = []

    class Asked(MemoryStore):
        def get(self, name: str, start: int, stop: int) -> bytes:
            asked.append(stop)
            return b"x"

    store = Asked(uuid.uuid4().hex)
    store.put(name, b"x")
    with pytest.raises((ManifestError, ClaimedError)):
        read(store)
    assert asked == [bytes_max + 1]
