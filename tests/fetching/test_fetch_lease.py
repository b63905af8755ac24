"""A fetch beside a collection: its lease keeps the epoch there, and nothing that becomes of the lease disturbs the fetch."""

from __future__ import annotations

import shutil
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from random import Random

import pytest

from pipelines.bucket.chain_catalogue import CatalogueWriter
from pipelines.fetching.fetch_epoch import EpochFetch
from pipelines.fetching.fetch_progress import FetchProgress
from pipelines.fetching.fetch_settings import FetchSettings
from pipelines.keeping.collect_epochs import CollectionResult, collect_epochs
from pipelines.keeping.retention import RetentionRule
from pipelines.stores.file_store import FileStore
from pipelines.stores.open_store import open_store
from pipelines.trust.policy import TrustPolicy
from schemas.errors import FetchError, StoreDeniedError
from tests.support.fault_server import fault_server
from tests.support.fetches import QUICK
from tests.support.published import session_folder
from tests.support.stored_epochs import CHAIN_ID, NUM_PARTS, epoch_layout, publish_epoch

LAYOUT = epoch_layout(1)
WAIT_S = 120


@lru_cache
def published() -> Path:
    """Return a folder with epochs 1 and 2. It must not be changed."""
    folder = session_folder() / "two-epochs"
    for epoch_height in (1, 2):
        publish_epoch(str(folder), epoch_height)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy."""
    return Path(shutil.copytree(published(), tmp_path / "store"))


@dataclass
class Collector:
    """A watcher that collects everything but the newest epoch once the first part is here."""

    url: str
    wait_for_lease: bool = True
    result: CollectionResult | None = None
    leases: list[str] = field(default_factory=list)
    events: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    def progress(self, progress: FetchProgress) -> None:
        """Pass over it."""

    def event(self, name: str, facts: dict[str, object]) -> None:
        """Collect at the first part."""
        self.events.append((name, facts))
        if name != "part" or self.result is not None:
            return
        store, deadline = open_store(self.url), time.monotonic() + WAIT_S
        while self.wait_for_lease and not self.leases:
            assert time.monotonic() < deadline, "no lease came"
            self.leases = [info.name for info in store.list(LAYOUT.leases_folder)]
        self.result = collect_epochs(self.url, CHAIN_ID, RetentionRule(1))

    def told(self, name: str) -> list[dict[str, object]]:
        """Return the facts of all events of a name."""
        return [facts for found, facts in self.events if found == name]


def fetch(into: Path, watcher: Collector, url: str, *, hold_lease: bool = True) -> int:
    """Fetch epoch 1; return how many parts came."""
    settings = FetchSettings(
        url=url,
        source_urls=(),
        chain_id=CHAIN_ID,
        epoch=f"{LAYOUT.epoch_id}",
        shard_ids=(),
        into=into,
        policy=TrustPolicy(insecure=True),
        limits=QUICK,
        kernel_name="auto",
        verify_workers=1,
        verify_in_threads=True,
        hold_lease=hold_lease,
    )
    result = EpochFetch(settings, watcher, Random(1)).run()
    return sum(len(shard.missing) for shard in result.shards)


def test_an_epoch_that_is_fetched_is_not_collected(root: Path, tmp_path: Path) -> None:
    """The collection comes in the midst of the fetch, and leaves the epoch to the next one."""
    watcher = Collector(str(root))
    assert fetch(tmp_path / "into", watcher, str(root)) == NUM_PARTS
    assert watcher.result is not None and watcher.result.collected == ()
    assert len(watcher.leases) == 1
    assert list(open_store(str(root)).list(LAYOUT.leases_folder)) == []
    assert [facts["state"] for facts in watcher.told("lease")] == ["held"]
    assert len(collect_epochs(str(root), CHAIN_ID, RetentionRule(1)).collected) == 1


@dataclass
class Dying(Collector):
    """An observer that fails unexpectedly once the lease is there."""

    def event(self, name: str, facts: dict[str, object]) -> None:
        """Fail at the first part."""
        super().event(name, facts)
        if name == "part":
            raise NameError


def test_a_fetch_that_fails_unexpectedly_leaves_no_lease(root: Path, tmp_path: Path) -> None:
    """A collection need not wait for its end."""
    watcher = Dying(str(root))
    with pytest.raises(NameError):
        fetch(tmp_path / "into", watcher, str(root))
    assert len(watcher.leases) == 1
    assert list(open_store(str(root)).list(LAYOUT.leases_folder)) == []


def test_without_a_lease_the_epoch_goes(root: Path, tmp_path: Path) -> None:
    """What is asked for is done: no lease is written, and the collection sees no reader."""
    watcher = Collector(str(root), wait_for_lease=False)
    # Whether the parts that were still missing came in time is a matter of luck.
    with suppress(FetchError):
        fetch(tmp_path / "into", watcher, str(root), hold_lease=False)
    assert watcher.result is not None and len(watcher.result.collected) == 1
    assert watcher.told("lease") == []


def test_a_fetch_of_an_epoch_that_is_being_deleted_says_so(root: Path, tmp_path: Path) -> None:
    """It goes on all the same."""
    store = open_store(str(root))
    CatalogueWriter(store, CHAIN_ID).change(lambda catalogue: catalogue.marked(LAYOUT, datetime.now(UTC)))
    watcher = Collector(str(root))
    assert fetch(tmp_path / "into", watcher, str(root)) == NUM_PARTS
    assert [facts["state"] for facts in watcher.told("lease")] == ["leaving"]
    assert any("deleting this epoch" in str(facts["text"]) for facts in watcher.told("note"))


def test_a_store_that_cannot_be_written_is_read_all_the_same(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said to people but in the events."""

    asked = threading.Event()

    def refuse(*_: object, **__: object) -> None:
        asked.set()
        raise StoreDeniedError(problem="read only")

    monkeypatch.setattr(FileStore, "put", refuse)

    class Watcher(Collector):
        def event(self, name: str, facts: dict[str, object]) -> None:
            # Not over before the store was asked, in another thread.
            assert name != "part" or asked.wait(WAIT_S)
            super().event(name, facts)

    watcher = Watcher(str(root), wait_for_lease=False, result=CollectionResult((), (), (), plan_only=True))
    assert fetch(tmp_path / "into", watcher, str(root)) == NUM_PARTS
    assert [facts["state"] for facts in watcher.told("lease")] == ["refused"]
    assert watcher.told("note") == []


def test_a_web_server_is_asked_for_no_lease(root: Path, tmp_path: Path) -> None:
    """There is nothing to write to."""
    watcher = Collector(str(root), wait_for_lease=False, result=CollectionResult((), (), (), plan_only=True))
    with fault_server(root, tmp_path / "log", everything=True) as server:
        url = f"{server.url}/{LAYOUT.folder}"
        assert fetch(tmp_path / "into", watcher, url) == NUM_PARTS
        assert not [line for line in server.requests if "leases" in line]
    assert watcher.told("lease") == []
