"""What each reader of listings does when a listing is behind the objects, as those of some S3-compatible servers are.

GCS and S3 promise listings that are never behind. Nothing here may lose or damage an object when that promise is broken.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.bucket.chain_catalogue import CatalogueWriter, read_catalogue
from pipelines.bucket.published_epoch import read_manifest
from pipelines.keeping.collect_epochs import collect_epochs
from pipelines.keeping.retention import RetentionRule
from pipelines.producing.publish.epoch_publisher import EpochPublisher
from pipelines.stores import open_store as stores
from pipelines.stores.file_store import FileStore
from schemas.nearcore.state_part import Encoding
from schemas.published.object_layout import latest_name
from tests.support.commands import objects_in, statecast
from tests.support.faulty_store import LaggingStore
from tests.support.productions import signer
from tests.support.published import public_key
from tests.support.stored_epochs import CHAIN_ID, epoch_context, epoch_layout, publish_epoch


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store's folder."""
    return tmp_path / "store"


@pytest.fixture
def lagging(monkeypatch: pytest.MonkeyPatch, root: Path) -> Iterator[LaggingStore]:
    """That store, wherever it is opened from now on."""
    store = LaggingStore(FileStore(str(root), durable=False))
    monkeypatch.setattr(stores, "FileStore", lambda path, *options: store if path == str(root) else FileStore(path, *options))
    yield store


def catalogued(store: LaggingStore) -> list[int]:
    """Return the heights in the catalogue."""
    catalogue = read_catalogue(store, CHAIN_ID)
    return [] if catalogue is None else [epoch.epoch_height for epoch in catalogue.epochs]


def test_what_is_published_and_not_listed_is_made_again_the_same(root: Path, lagging: LaggingStore) -> None:
    """The cost is a second production; its objects are those that are there."""
    lagging.fall_behind()
    publish_epoch(str(root), 1)
    before = objects_in(root)
    publisher = EpochPublisher(str(root), signer(), Encoding.V1, 1)
    assert publisher.find_published(epoch_context(1), 5) is None
    publish_epoch(str(root), 1)
    assert objects_in(root).keys() == before.keys()
    assert {name for name in before if objects_in(root)[name] != before[name]} <= {
        epoch_layout(1).manifest,
        latest_name(CHAIN_ID),
        f"chain_id={CHAIN_ID}/catalogue.json",
    }
    lagging.catch_up()
    assert publisher.find_published(epoch_context(1), 5) is not None


def test_publishing_enters_the_catalogue_without_a_listing(root: Path, lagging: LaggingStore) -> None:
    """Each entry is a swap of the catalogue before."""
    for epoch_height in (1, 2, 3):
        publish_epoch(str(root), epoch_height)
        stored = read_manifest(lagging, epoch_layout(epoch_height))
        assert stored is not None
        CatalogueWriter(lagging, CHAIN_ID).record(stored.manifest, stored.envelope.payload_sha256)
        if epoch_height == 1:
            lagging.fall_behind()
    assert catalogued(lagging) == [1, 2, 3]


def test_a_catalogue_made_anew_lacks_what_is_not_listed_until_it_is_made_again(root: Path, lagging: LaggingStore) -> None:
    """The manifests are untouched, so nothing is lost."""
    publish_epoch(str(root), 1)
    lagging.fall_behind()
    publish_epoch(str(root), 2)
    CatalogueWriter(lagging, CHAIN_ID).rebuild()
    assert catalogued(lagging) == [1]
    lagging.catch_up()
    CatalogueWriter(lagging, CHAIN_ID).rebuild()
    assert catalogued(lagging) == [1, 2]


def test_an_epoch_whose_manifest_is_not_listed_yet_is_not_collected(root: Path, lagging: LaggingStore) -> None:
    """It looks like what a killed producer left; before anything goes, its manifest is asked for by name."""
    publish_epoch(str(root), 1)
    manifest = root / epoch_layout(1).manifest
    kept = manifest.read_bytes()
    manifest.unlink()
    lagging.fall_behind()
    manifest.write_bytes(kept)
    (root / latest_name(CHAIN_ID)).unlink(missing_ok=True)
    before = objects_in(root)
    result = collect_epochs(str(root), CHAIN_ID, RetentionRule(1, orphans_after_s=0), now=lambda: datetime.now(UTC) + timedelta(days=30))
    assert result.collected == ()
    assert any("published in the meantime" in note for note in result.notes), result.notes
    assert {name: data for name, data in objects_in(root).items() if "catalogue" not in name} == {
        name: data for name, data in before.items() if "catalogue" not in name
    }


def test_an_epoch_that_is_listed_and_gone_disturbs_no_collection(root: Path, lagging: LaggingStore) -> None:
    """Nothing else goes for it."""
    for epoch_height in (1, 2, 3):
        publish_epoch(str(root), epoch_height)
    lagging.fall_behind()
    assert len(collect_epochs(str(root), CHAIN_ID, RetentionRule(2)).collected) == 1
    left = objects_in(root)
    collect_epochs(str(root), CHAIN_ID, RetentionRule(2))
    assert {name for name in objects_in(root) if "epoch_height" in name} == {name for name in left if "epoch_height" in name}
    lagging.catch_up()
    assert collect_epochs(str(root), CHAIN_ID, RetentionRule(2)).collected == ()


def test_an_epoch_that_is_named_is_checked_without_being_listed(root: Path, lagging: LaggingStore) -> None:
    """Only a request for the newest, or for all, needs a listing; a reader that is too early finds nothing."""
    lagging.fall_behind()
    publish_epoch(str(root), 1)
    assert statecast("check", f"{root}/{epoch_layout(1).folder}", "--in-process").code == 0
    for arguments in (
        ("check", root, "--in-process"),
        ("scrub", f"{root}/chain_id={CHAIN_ID}", "--full", "--trust-key", public_key(), "--in-process"),
    ):
        outcome = statecast(*arguments)
        assert outcome.code == 11, outcome.stderr
