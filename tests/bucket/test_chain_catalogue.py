"""The catalogue beside concurrent writers, killed ones and damage."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines.bucket.chain_catalogue import CatalogueWriter, read_catalogue, record_published
from pipelines.stores.compare_and_swap import SWAP_ATTEMPTS_MAX, WAIT_MAX_S
from pipelines.stores.open_store import open_store
from pipelines.stores.store import Store
from schemas.errors import ManifestError, ObjectExistsError
from schemas.published.catalogue import Catalogue, CatalogueEpoch
from schemas.published.manifest import Manifest
from schemas.published.object_layout import EpochLayout, catalogue_name
from tests.support.faulty_store import Fault
from tests.support.productions import inject, meanwhile, new_store_url
from tests.support.published_values import make_manifest
from tests.support.servers import gcs_bucket, s3_bucket
from tests.support.stored_bytes import stored_bytes
from tests.support.stored_epochs import CHAIN_ID, epoch_layout, publish_epoch

WRITERS = 4
EPOCHS_A_WRITER = 3
PROCESS_TIMEOUT_S = 600


def manifest_of(epoch_height: int, revision: int = 1) -> Manifest:
    """A manifest of an epoch."""
    return replace(make_manifest(), epoch_height=epoch_height, revision=revision)


def heights(catalogue: Catalogue | None) -> list[int]:
    """The heights of all entries."""
    assert catalogue is not None
    return [epoch.epoch_height for epoch in catalogue.epochs]


@pytest.fixture
def store() -> Store:
    """An empty store."""
    return open_store(new_store_url())


def test_publishing_enters_an_epoch() -> None:
    """With its shards, bytes and the digest of its manifest; a later revision replaces the entry."""
    url = new_store_url()
    publish_epoch(url, 7, complete=False)
    catalogue = read_catalogue(open_store(url), CHAIN_ID)
    assert catalogue is not None
    (epoch,) = catalogue.epochs
    assert epoch.listing is not None
    assert (epoch.key[0], epoch.listing.revision, epoch.listing.is_complete) == (7, 1, False)
    (shard,) = epoch.listing.shards
    stored = {info.name: info.size for info in open_store(url).list(epoch_layout(7).shard_folder(0))}
    assert (shard.parts, shard.size, epoch.listing.size) == (len(stored), sum(stored.values()), sum(stored.values()))
    publish_epoch(url, 7)
    publish_epoch(url, 6)
    catalogue = read_catalogue(open_store(url), CHAIN_ID)
    assert heights(catalogue) == [6, 7]
    assert catalogue is not None and catalogue.epochs[1].listing is not None
    assert (catalogue.epochs[1].listing.revision, catalogue.epochs[1].listing.is_complete) == (2, True)


def test_a_rebuild_gives_the_same_bytes() -> None:
    """The catalogue says nothing that the manifests do not say."""
    url = new_store_url()
    for epoch_height in (3, 1, 2):
        publish_epoch(url, epoch_height)
    store, name = open_store(url), catalogue_name(CHAIN_ID)
    kept = stored_bytes(store, name)
    store.delete(name)
    CatalogueWriter(store, CHAIN_ID).rebuild()
    assert stored_bytes(store, name) == kept


def test_a_missing_catalogue_is_made_whole_by_the_next_publication() -> None:
    """Epochs that were published before there was one are in it."""
    url = new_store_url()
    publish_epoch(url, 1)
    open_store(url).delete(catalogue_name(CHAIN_ID))
    publish_epoch(url, 2)
    assert heights(read_catalogue(open_store(url), CHAIN_ID)) == [1, 2]


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff\xfe", b'{"format":"urn:statecast:catalogue:v1"}'])
def test_a_damaged_catalogue_is_made_anew_and_that_is_said(damage: bytes) -> None:
    """Nothing is lost, since the manifests are there."""
    url = new_store_url()
    publish_epoch(url, 1)
    open_store(url).put(catalogue_name(CHAIN_ID), damage)
    with pytest.raises(ManifestError):
        read_catalogue(open_store(url), CHAIN_ID)
    assert any("catalogue could not be read" in note for note in publish_epoch(url, 2).notes)
    assert heights(read_catalogue(open_store(url), CHAIN_ID)) == [1, 2]


def test_a_damaged_manifest_is_listed_as_damaged() -> None:
    """With what is wrong with it."""
    url = new_store_url()
    publish_epoch(url, 1)
    publish_epoch(url, 2)
    open_store(url).put(epoch_layout(1).manifest, b"rotten")
    first, second = CatalogueWriter(open_store(url), CHAIN_ID).rebuild().catalogue.epochs
    assert first.listing is None and "not JSON" in first.problem
    assert second.listing is not None


def test_a_later_revision_is_not_replaced_by_an_earlier_one(store: Store) -> None:
    """Two producers may come in any order."""
    writer = CatalogueWriter(store, "testnet")
    writer.record(manifest_of(1, revision=2), "ab" * 32)
    (epoch,) = writer.record(manifest_of(1, revision=1), "cd" * 32).catalogue.epochs
    assert epoch.listing is not None and epoch.listing.revision == 2


def test_a_publication_takes_the_mark_of_a_deletion_back(store: Store) -> None:
    """What was published again is not about to go."""
    writer, layout = CatalogueWriter(store, "testnet"), EpochLayout("testnet", 1, make_manifest().epoch_id)
    writer.record(manifest_of(1), "ab" * 32)
    writer.change(lambda catalogue: catalogue.marked(layout, datetime(2026, 11, 23, tzinfo=UTC)))
    (epoch,) = writer.record(manifest_of(1), "ab" * 32).catalogue.epochs
    assert epoch.leaving_since is None


def test_a_rebuild_keeps_the_marks_of_deletions(store: Store) -> None:
    """A killed deletion is known by its mark alone."""
    writer, layout = CatalogueWriter(store, "testnet"), EpochLayout("testnet", 1, make_manifest().epoch_id)
    since = datetime(2026, 11, 23, tzinfo=UTC)
    writer.change(lambda catalogue: catalogue.marked(layout, since))
    (epoch,) = writer.rebuild().catalogue.epochs
    assert (epoch.epoch_height, epoch.leaving_since, epoch.listing) == (1, since, None)


def test_the_same_entry_again_writes_nothing(store: Store) -> None:
    """A rerun that finds everything published costs no write of a name that takes one a second."""
    writer = CatalogueWriter(store, "testnet")
    writer.record(manifest_of(1), "ab" * 32)
    before = store.info(catalogue_name("testnet"))
    writer.record(manifest_of(1), "ab" * 32)
    assert store.info(catalogue_name("testnet")) == before


def test_a_lost_race_is_tried_again_on_what_the_other_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the reading and the swap another writer enters an epoch: both are there in the end."""
    url = new_store_url()

    def other() -> None:
        CatalogueWriter(open_store(url), "testnet").record(manifest_of(2), "ab" * 32)

    inject(monkeypatch, url, meanwhile("put", "catalogue.json", other))
    pauses: list[float] = []
    CatalogueWriter(open_store(url), "testnet", sleep=pauses.append).record(manifest_of(1), "ab" * 32)
    assert heights(read_catalogue(open_store(url), "testnet")) == [1, 2]
    assert len(pauses) == 1


def test_a_writer_that_never_wins_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bounded time, with pauses that are bounded; the publication says so and stands."""
    url, revisions = new_store_url(), iter(range(1, 1000))

    def other() -> None:
        CatalogueWriter(open_store(url), "testnet").record(manifest_of(2, next(revisions)), "ab" * 32)

    other()
    inject(monkeypatch, url, meanwhile("swap", "catalogue.json", other, times=1000))
    pauses: list[float] = []
    with pytest.raises(ObjectExistsError):
        CatalogueWriter(open_store(url), "testnet", sleep=pauses.append).record(manifest_of(1), "ab" * 32)
    assert len(pauses) == SWAP_ATTEMPTS_MAX - 1
    assert max(pauses) <= WAIT_MAX_S


def test_a_catalogue_that_cannot_be_written_fails_no_publication(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a note."""
    url = new_store_url()
    opened = inject(monkeypatch, url, lambda method, name, _: Fault.FAIL_BEFORE if method == "put" and "catalogue" in name else None)
    notes = publish_epoch(url, 1).notes
    assert opened[0].injected
    assert any("the catalogue was not updated" in note and "--rebuild" in note for note in notes)
    assert open_store(url).info(epoch_layout(1).manifest) is not None


def _write(url: str, writer: int) -> None:
    store = open_store(url)
    for number in range(EPOCHS_A_WRITER):
        note = record_published(store, manifest_of(100 * writer + number), "ab" * 32)
        assert not note, note


def race(url: str) -> None:
    """Let several processes enter epochs at once; none of them may be lost."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write, args=(url, writer)) for writer in range(1, WRITERS + 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PROCESS_TIMEOUT_S)
        assert process.exitcode == 0
    expected = [100 * writer + number for writer in range(1, WRITERS + 1) for number in range(EPOCHS_A_WRITER)]
    assert heights(read_catalogue(open_store(url), "testnet")) == expected


def test_several_processes_lose_no_epoch_in_a_folder(tmp_path: Path) -> None:
    """The swap is decided under a lock."""
    race(str(tmp_path / "store"))


@pytest.mark.slow
def test_several_processes_lose_no_epoch_on_s3() -> None:
    """The swap is decided by the server."""
    with s3_bucket() as url:
        race(f"{url}/race")


@pytest.mark.slow
def test_several_processes_lose_no_epoch_on_gcs() -> None:
    """The swap is decided by the server."""
    with gcs_bucket() as url:
        race(f"{url}/race")


def test_an_entry_of_another_chain_is_no_catalogue(store: Store) -> None:
    """A catalogue that was copied to the wrong place is not followed."""
    store.put(catalogue_name("testnet"), Catalogue("mainnet", (CatalogueEpoch.damaged(epoch_layout(1), "x"),)).to_bytes())
    with pytest.raises(ManifestError, match="mainnet"):
        read_catalogue(store, "testnet")
