"""Catalogue, collection, leases and scrub on object stores: what a folder shows holds there too."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from pipelines.bucket.chain_catalogue import CatalogueWriter
from pipelines.bucket.lease_keeper import EpochLease, LeaseState
from pipelines.execution.stage_runner import silent_runner
from pipelines.keeping.collect_epochs import collect_epochs
from pipelines.keeping.retention import RetentionRule
from pipelines.keeping.scrub_chain import ChainScrub, ScrubSettings
from pipelines.stores.open_store import open_store
from schemas.ids import PartId
from schemas.published.scrub_state import WHOLE_PPM
from tests.support.servers import gcs_bucket, s3_bucket
from tests.support.stored_bytes import stored_bytes
from tests.support.stored_epochs import CHAIN_ID, NUM_PARTS, epoch_layout, publish_epoch


@pytest.fixture
def s3() -> Iterator[str]:
    """A folder of an S3 bucket."""
    with s3_bucket() as url:
        yield f"{url}/kept"


@pytest.fixture
def gcs() -> Iterator[str]:
    """A folder of a GCS bucket."""
    with gcs_bucket() as url:
        yield f"{url}/kept"


def keep(url: str) -> None:
    """Publish, scrub and repair, hold, collect, and clear an orphan away."""
    for epoch_height in (1, 2, 3):
        publish_epoch(url, epoch_height)
    store = open_store(url)
    part = epoch_layout(2).state_part(0, PartId(3, NUM_PARTS))
    data = stored_bytes(store, part)
    store.put(part, data[:-1] + b"x")
    settings = ScrubSettings(url, (epoch_layout(2),), WHOLE_PPM, None, repair=True)
    runner = silent_runner()
    (found,) = ChainScrub(runner, settings).run().epochs
    assert [finding.object_name for finding in found.scrubbed.harmful] == [part]
    store.put(part, data)
    (found,) = ChainScrub(runner, settings).run().epochs
    assert found.scrubbed.findings == ()

    lease = EpochLease(store, epoch_layout(1), "fetch")
    assert lease.renew() is LeaseState.HELD
    assert [epoch.decision.layout for epoch in collect_epochs(url, CHAIN_ID, RetentionRule(1)).collected] == [epoch_layout(2)]
    lease.release()
    store.delete(epoch_layout(1).manifest)
    CatalogueWriter(store, CHAIN_ID).rebuild()
    later = datetime.now(UTC) + timedelta(days=3)
    assert collect_epochs(url, CHAIN_ID, RetentionRule(1)).collected == ()
    assert [epoch.decision.layout for epoch in collect_epochs(url, CHAIN_ID, RetentionRule(1), now=lambda: later).collected] == [
        epoch_layout(1)
    ]
    assert {info.name.split("/")[1] for info in store.list()} == {"catalogue.json", "latest.json", "epoch_height=3"}


@pytest.mark.slow
def test_keeping_on_s3(s3: str) -> None:
    """With the server's own clock and conditions."""
    keep(s3)


@pytest.mark.slow
def test_keeping_on_gcs(gcs: str) -> None:
    """With the server's own clock and generations."""
    keep(gcs)
