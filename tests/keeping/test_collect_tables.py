"""Tables that are no longer kept: what goes, in which order, and what a killed collection leaves."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import pytest

from pipelines.dataset.tables.tables_place import open_tables
from pipelines.keeping.collect_tables import collect_tables
from pipelines.keeping.retention import RetentionRule
from pipelines.stores.compare_and_swap import swapped
from pipelines.stores.memory_store import MemoryStore
from pipelines.stores.open_store import open_store
from schemas.dataset.tables_summary import tables_height
from schemas.errors import ClaimedError, DatasetError, EpochNotReadyError, StoreError
from tests.support.small_tables import exported, new_url, objects, pairs_of, written

CATALOGUE = "_catalogue.json"


@lru_cache
def four_epochs() -> dict[str, bytes]:
    """Return what a place has with tables of the epochs 5 to 8."""
    place = new_url()
    for height in (5, 6, 7, 8):
        written(place, exported(pairs_of(height), height))
    return objects(place)


def place_at(url: str) -> str:
    """Put them at a place."""
    for name, data in four_epochs().items():
        open_store(url).put(name, data)
    return url


@pytest.fixture
def url() -> str:
    """A place with tables of the epochs 5 to 8."""
    return place_at(new_url())


def collect(url: str, keep: int, keep_days: float | None = None, plan: bool = False, later_s: float = 0) -> list[int]:
    """Collect; return the heights that went."""
    now = datetime.now(UTC) + timedelta(seconds=later_s)
    return [
        one.decision.layout.epoch_height for one in collect_tables(url, RetentionRule(keep, keep_days), plan, now=lambda: now)[1].collected
    ]


def heights_in(url: str) -> list[int]:
    """Return the heights that files are of."""
    return sorted({height for name in objects(url) if (height := tables_height(name)) is not None})


def finished(url: str) -> list[int]:
    """Return the heights in the catalogue."""
    return [entry["epoch_height"] for entry in json.loads(objects(url)[CATALOGUE])["epochs"]]


def test_the_newest_epochs_stay_and_all_else_goes(url: str) -> None:
    """Files, summaries, catalogue and views; a plan changes nothing, a rerun finds nothing to do."""
    before = objects(url)
    assert collect(url, 2, plan=True) == [5, 6]
    assert objects(url) == before
    assert collect(url, 2) == [5, 6]
    assert heights_in(url) == finished(url) == [7, 8]
    assert "epoch_height in (7, 8)" in objects(url)["_sql/views.sql"].decode()
    kept = {name: data for name, data in before.items() if tables_height(name) in (7, 8)}
    assert {name: data for name, data in objects(url).items() if tables_height(name) is not None} == kept
    after = objects(url)
    assert collect(url, 2) == [] and objects(url) == after
    with pytest.raises(EpochNotReadyError, match=r"epoch 5 is not finished here.*Finished are 8"):
        open_tables(url, "5")


def test_the_newest_complete_epoch_stays_below_those_that_are_not(tmp_path: Path) -> None:
    """An epoch that was begun stays until it is old; then it goes as well."""
    url = place_at(str(tmp_path))
    store = open_store(url)
    store.put("kind=account/chain_id=test/epoch_height=9/shard_id=0/range-000000-0000.parquet", b"begun")
    assert collect(url, 1) == [5, 6, 7]
    assert heights_in(url) == [8, 9] and open_tables(url).entry.epoch_height == 8
    assert collect(url, 1, later_s=3 * 86_400) == [9]
    assert heights_in(url) == finished(url) == [8]


def test_what_nobody_here_names_so_stays(url: str) -> None:
    """Other digits of the same number, other files beside; an epoch is deleted by the names that its writers give."""
    names = ("kind=account/chain_id=test/epoch_height=05/a.parquet", "kind=account/chain_id=test/epoch=5/a.parquet", "notes/5.txt")
    for name in names:
        open_store(url).put(name, b"foreign")
    assert collect(url, 1) == [5, 6, 7]
    assert {*names} <= {*objects(url)}


def test_what_was_finished_a_few_days_ago_stays(url: str, tmp_path: Path) -> None:
    """By the store's clock; where it has none, all that has an age does."""
    assert collect(url, 1, keep_days=2, later_s=3 * 86_400) == []
    url = place_at(str(tmp_path))
    assert collect(url, 1, keep_days=2) == []
    assert collect(url, 1, keep_days=2, later_s=3 * 86_400) == [5, 6, 7]


@pytest.mark.parametrize("deletions", [0, 1, 5, 10])
def test_a_killed_collection_leaves_nothing_that_is_taken_for_finished(url: str, deletions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pointer is right throughout, who makes the epoch anew is told to wait, and a rerun ends it, whatever is to be kept now."""
    left, delete = deletions, MemoryStore.delete

    def killed(store: MemoryStore, name: str) -> None:
        nonlocal left
        assert json.loads(store.get("_latest.json", 0, 1 << 20))["epoch_height"] == 8
        if not left:
            raise StoreError(problem="the process is gone")
        left -= 1
        delete(store, name)

    monkeypatch.setattr(MemoryStore, "delete", killed)
    with pytest.raises(StoreError, match="is gone"):
        collect(url, 2)
    monkeypatch.undo()
    assert finished(url) == [7, 8] and 6 in heights_in(url)
    with pytest.raises(ClaimedError, match="tables of epoch 6 are being deleted"):
        written(url, exported(pairs_of(6), 6))
    assert collect(url, 4) == [5, 6]
    assert heights_in(url) == [7, 8] and b"leaving" not in objects(url)[CATALOGUE]
    written(url, exported(pairs_of(6), 6))
    assert finished(url) == [6, 7, 8]


def test_an_epoch_that_is_made_anew_meanwhile_stays(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was another when it was decided that it goes."""
    made: list[object] = []

    def anew(store: object, name: str, make: object) -> object:
        if not made:
            made.append(written(url, exported(pairs_of(5, changed=(2,)), 5)))
        return swapped(store, name, make)  # type: ignore[arg-type]

    monkeypatch.setattr("pipelines.keeping.collect_tables.swapped", anew)
    assert collect(url, 2) == [6]
    assert finished(url) == [5, 7, 8]


def test_a_lost_catalogue_is_made_again_first(url: str) -> None:
    """The same as it was; readers are told what makes it, and a plan makes nothing."""
    before, store = objects(url), open_store(url)
    for name in (CATALOGUE, "_latest.json", "_sql/views.sql"):
        store.delete(name)
    with pytest.raises(DatasetError, match=r"the catalogue of the tables is not there.*statecast gc --tables"):
        open_tables(url)
    assert collect(url, 9, plan=True) == [] and CATALOGUE not in objects(url)
    assert collect(url, 9) == []
    assert {name: data for name, data in objects(url).items() if "_sql/" not in name} == {
        name: data for name, data in before.items() if "_sql/" not in name
    }
    assert "epoch_height in (5, 6, 7, 8)" in objects(url)["_sql/views.sql"].decode()
    with pytest.raises(DatasetError, match="no tables are there"):
        collect(new_url(), 1)
