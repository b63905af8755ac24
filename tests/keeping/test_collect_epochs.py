"""A collection: what goes, what stays, killed at each step, beside readers and producers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.bucket.chain_catalogue import MARK_STALE_S, CatalogueWriter, read_catalogue
from pipelines.bucket.epoch_claim import Claimant
from pipelines.bucket.holder_process import this_holder
from pipelines.bucket.lease_keeper import EpochLease, LeaseState
from pipelines.execution.progress import SilentProgress
from pipelines.keeping.collect_epochs import CollectionResult, collect_epochs
from pipelines.keeping.retention import RetentionRule
from pipelines.producing.claimed_production import ClaimTerms, claimed
from pipelines.stores.open_store import open_store
from pipelines.stores.store import Store
from schemas.errors import ClaimedError, InvalidInputError
from schemas.published.latest_pointer import LatestPointer
from schemas.published.object_layout import EpochLayout, ObjectKind, catalogue_name, latest_name, parse_object_name, probe_name
from tests.support.productions import inject, meanwhile
from tests.support.stored_epochs import CHAIN_ID, epoch_context, epoch_layout, publish_epoch, store_with


class Killed(BaseException):
    """Nothing cleans up after this."""


def heights_in(url: str) -> list[int]:
    """Return the heights of all epochs of which any object is there."""
    found = (parse_object_name(info.name) for info in open_store(url).list())
    return sorted({name.epoch.epoch_height for name in found if name is not None and name.epoch is not None})


def listed(url: str) -> list[int]:
    """Return the heights in the catalogue."""
    catalogue = read_catalogue(open_store(url), CHAIN_ID)
    assert catalogue is not None
    return [epoch.epoch_height for epoch in catalogue.epochs]


def reason_of(result: CollectionResult, epoch_height: int) -> str:
    """Return why an epoch stays or goes."""
    return next(epoch.decision.reason for epoch in result.epochs if epoch.decision.layout.epoch_height == epoch_height)


def collected(result: CollectionResult) -> list[int]:
    """Return the heights that went."""
    return [epoch.decision.layout.epoch_height for epoch in result.collected]


def test_old_epochs_go_and_new_ones_stay() -> None:
    """Whole; and the catalogue says the same."""
    url = store_with(1, 2, 3, 4)
    sizes = sum(info.size for info in open_store(url).list(epoch_layout(1).folder))
    result = collect_epochs(url, CHAIN_ID, RetentionRule(2))
    assert collected(result) == [1, 2]
    assert result.epochs[0].deleted_bytes == sizes
    assert heights_in(url) == listed(url) == [3, 4]


@pytest.mark.parametrize("failure", [NameError, KeyboardInterrupt])
def test_a_collection_that_dies_before_it_deletes_takes_its_mark_back(
    monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]
) -> None:
    """Else producers would be kept away from an epoch that is not being deleted."""
    url, looks = store_with(1, 2), []

    def fail(method: str, name: str, _number: int) -> None:
        # Where its readers would be: it looks for them after the mark.
        if method == "list" and name == epoch_layout(1).leases_folder:
            catalogue = read_catalogue(open_store(url), CHAIN_ID)
            assert catalogue is not None
            looks.append([entry.epoch_height for entry in catalogue.epochs if entry.leaving_since is not None])
            raise failure

    inject(monkeypatch, url, fail)
    with pytest.raises(failure):
        collect_epochs(url, CHAIN_ID, RetentionRule(1))
    assert looks == [[1]]
    catalogue = read_catalogue(open_store(url), CHAIN_ID)
    assert catalogue is not None
    assert [entry.leaving_since for entry in catalogue.epochs] == [None, None]
    assert heights_in(url) == [1, 2]


def test_the_catalogue_is_written_once_for_each_epoch_that_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is gone is taken out with the mark of the next, and the last at the end: it may be large, and others write it too."""
    url, writes = store_with(1, 2, 3, 4, 5), list[str]()

    def note(method: str, name: str, _number: int) -> None:
        if method == "swap" and name == catalogue_name(CHAIN_ID):
            writes.append(name)

    inject(monkeypatch, url, note)
    assert collected(collect_epochs(url, CHAIN_ID, RetentionRule(1))) == [1, 2, 3, 4]
    assert (len(writes), listed(url), heights_in(url)) == (5, [5], [5])


def test_a_plan_deletes_nothing() -> None:
    """It names what would go, and how much that is."""
    url = store_with(1, 2)
    before = [(info.name, info.version) for info in open_store(url).list()]
    result = collect_epochs(url, CHAIN_ID, RetentionRule(1), plan_only=True)
    assert collected(result) == [1]
    assert result.deleted_bytes == sum(info.size for info in open_store(url).list(epoch_layout(1).folder))
    assert [(info.name, info.version) for info in open_store(url).list()] == before


def test_young_epochs_stay() -> None:
    """By their manifests' times."""
    url = store_with(1, 2)
    assert collected(collect_epochs(url, CHAIN_ID, RetentionRule(1, keep_days=1))) == []
    assert collected(collect_epochs(url, CHAIN_ID, RetentionRule(1, keep_days=1), now=lambda: datetime.now(UTC) + timedelta(days=2))) == [1]


def test_the_epoch_that_the_pointer_names_stays() -> None:
    """Although newer ones are complete."""
    url = store_with(1, 2, 3)
    pointer = LatestPointer(CHAIN_ID, 1, epoch_layout(1).epoch_id, 1, "ab" * 32)
    open_store(url).put(latest_name(CHAIN_ID), pointer.to_bytes())
    assert collected(collect_epochs(url, CHAIN_ID, RetentionRule(1))) == [2]
    assert heights_in(url) == [1, 3]


def test_an_incomplete_epoch_pushes_nothing_out() -> None:
    """The newest complete one stays."""
    url = store_with(1)
    publish_epoch(url, 2, complete=False)
    assert collected(collect_epochs(url, CHAIN_ID, RetentionRule(1))) == []


def test_nothing_kept_is_refused() -> None:
    """Before anything is read."""
    with pytest.raises(InvalidInputError):
        collect_epochs(store_with(1), CHAIN_ID, RetentionRule(0))


def test_a_lease_keeps_an_epoch_until_it_ends() -> None:
    """And the reason names who holds it."""
    url = store_with(1, 2)
    lease = EpochLease(open_store(url), epoch_layout(1), "fetch")
    assert lease.renew() is LeaseState.HELD
    result = collect_epochs(url, CHAIN_ID, RetentionRule(1))
    assert collected(result) == [] and "held by a fetch of process" in reason_of(result, 1)
    lease.release()
    assert collected(collect_epochs(url, CHAIN_ID, RetentionRule(1))) == [1]


def test_a_claim_keeps_an_epoch() -> None:
    """A producer adds to it."""
    url = store_with(1, 2)
    held = Claimant(open_store(url), epoch_layout(1), (0,), this_holder()).acquire()
    assert collected(collect_epochs(url, CHAIN_ID, RetentionRule(1))) == []
    held.release()
    assert collected(collect_epochs(url, CHAIN_ID, RetentionRule(1))) == [1]


def test_a_lease_that_comes_before_the_mark_wins_the_race(monkeypatch: pytest.MonkeyPatch) -> None:
    """The collector has decided already: it looks once more after the mark, and takes the mark back."""
    url = store_with(1, 2)
    states: list[LeaseState] = []
    inject(
        monkeypatch,
        url,
        meanwhile("swap", "catalogue.json", lambda: states.append(EpochLease(open_store(url), epoch_layout(1), "fetch").renew())),
    )
    result = collect_epochs(url, CHAIN_ID, RetentionRule(1))
    assert states == [LeaseState.HELD]
    assert collected(result) == [] and "stays after all" in result.notes[-1]
    assert heights_in(url) == [1, 2]
    catalogue = read_catalogue(open_store(url), CHAIN_ID)
    assert catalogue is not None and all(epoch.leaving_since is None and epoch.listing is not None for epoch in catalogue.epochs)


def test_a_pointer_that_moves_at_the_last_moment_keeps_its_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read once more after the mark."""
    url = store_with(1, 2)
    pointer = LatestPointer(CHAIN_ID, 1, epoch_layout(1).epoch_id, 1, "ab" * 32).to_bytes()
    inject(monkeypatch, url, meanwhile("swap", "catalogue.json", lambda: open_store(url).put(latest_name(CHAIN_ID), pointer)))
    assert collected(collect_epochs(url, CHAIN_ID, RetentionRule(1))) == []
    assert heights_in(url) == listed(url) == [1, 2]


def test_a_lease_that_comes_after_the_mark_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of reader and collector at least one sees the other: here the reader sees that the epoch goes."""
    url = store_with(1, 2)
    states: list[LeaseState] = []
    inject(
        monkeypatch,
        url,
        meanwhile("delete", "manifest.json", lambda: states.append(EpochLease(open_store(url), epoch_layout(1), "fetch").renew())),
    )
    assert collected(collect_epochs(url, CHAIN_ID, RetentionRule(1))) == [1]
    assert states == [LeaseState.LEAVING]
    assert [info.name for info in open_store(url).list(epoch_layout(1).folder)] == leases(open_store(url), epoch_layout(1))
    assert EpochLease(open_store(url), epoch_layout(1), "fetch").renew() is LeaseState.GONE


def test_of_a_reader_and_a_collector_at_once_one_sees_the_other(tmp_path: Path) -> None:
    """In threads, as they come: never a lease that is held, told of no deletion, and an epoch that is gone."""
    for number in range(10):
        url = str(tmp_path / str(number))
        publish_epoch(url, 1)
        publish_epoch(url, 2)
        start = threading.Barrier(2)
        states: list[LeaseState] = []

        def read(url: str = url, start: threading.Barrier = start, states: list[LeaseState] = states) -> None:
            start.wait()
            states.append(EpochLease(open_store(url), epoch_layout(1), "fetch").renew())

        reader = threading.Thread(target=read)
        reader.start()
        start.wait()
        result = collect_epochs(url, CHAIN_ID, RetentionRule(1))
        reader.join()
        assert not (states == [LeaseState.HELD] and collected(result)), number


def test_foreign_objects_are_reported_and_stay() -> None:
    """In an epoch that goes and in one that stays; they make no epoch of a folder."""
    url = store_with(1, 2)
    foreign = [f"{epoch_layout(1).folder}/README", f"{epoch_layout(2).folder}/shard_id=0/x", f"{epoch_layout(9).folder}/mine"]
    for name in foreign:
        open_store(url).put(name, b"mine")
    result = collect_epochs(url, CHAIN_ID, RetentionRule(1))
    assert sorted(result.foreign) == sorted(foreign)
    assert collected(result) == [1]
    assert [info.name for info in open_store(url).list(epoch_layout(1).folder)] == foreign[:1]
    assert len(result.epochs) == 2
    assert [epoch.decision.layout.epoch_height for epoch in collect_epochs(url, CHAIN_ID, RetentionRule(1)).epochs] == [2]


def orphan(root: Path, epoch_height: int, age: timedelta) -> None:
    """Leave what a killed producer leaves: everything but the manifest, last changed some time ago."""
    publish_epoch(str(root), epoch_height)
    layout = epoch_layout(epoch_height)
    (root / layout.manifest).unlink()
    CatalogueWriter(open_store(str(root)), CHAIN_ID).rebuild()
    (root / latest_name(CHAIN_ID)).unlink(missing_ok=True)
    for path in (root / layout.folder).rglob("*"):
        stamp = (datetime.now(UTC) - age).timestamp()
        os.utime(path, (stamp, stamp))


def test_what_a_killed_producer_left_goes_after_a_while(tmp_path: Path) -> None:
    """Not before nothing changed in it for so long as was said, and never under a live claim."""
    root = tmp_path / "store"
    orphan(root, 1, timedelta(days=3))
    orphan(root, 2, timedelta(days=1))
    publish_epoch(str(root), 3)
    held = Claimant(open_store(str(root)), epoch_layout(1), (0,), this_holder()).acquire()
    assert collected(collect_epochs(str(root), CHAIN_ID, RetentionRule(1))) == []
    held.release()
    assert collected(collect_epochs(str(root), CHAIN_ID, RetentionRule(1))) == [1]
    assert heights_in(str(root)) == [2, 3]
    assert collected(collect_epochs(str(root), CHAIN_ID, RetentionRule(1, orphans_after_s=3600))) == [2]


def test_what_a_killed_look_left_goes_after_an_hour(tmp_path: Path) -> None:
    """One that may be under way stays, and a plan deletes nothing."""
    old, young = (tmp_path / probe_name(digit * 32) for digit in "01")
    old.parent.mkdir(parents=True)
    for path, age_s in ((old, 3700), (young, 3500)):
        path.write_text("probe")
        stamp = datetime.now(UTC).timestamp() - age_s
        os.utime(path, (stamp, stamp))
    collect_epochs(str(tmp_path), CHAIN_ID, RetentionRule(1), plan_only=True)
    assert old.exists()
    collect_epochs(str(tmp_path), CHAIN_ID, RetentionRule(1))
    assert young.exists() and not old.exists()


def test_a_producer_that_publishes_an_orphan_at_the_last_moment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest is looked for once more after the mark."""
    root = tmp_path / "store"
    orphan(root, 1, timedelta(days=3))
    publish_epoch(str(root), 2)
    change = CatalogueWriter.change

    def publish_first(self: CatalogueWriter, make: Callable[..., object]) -> object:
        if heights_published(root) == [2]:
            publish_epoch(str(root), 1)
        return change(self, make)  # type: ignore[arg-type]

    monkeypatch.setattr(CatalogueWriter, "change", publish_first)
    result = collect_epochs(str(root), CHAIN_ID, RetentionRule(5))
    assert collected(result) == []
    assert listed(str(root)) == [1, 2]


def heights_published(root: Path) -> list[int]:
    """Return the heights of the epochs with a manifest."""
    return sorted(int(path.parent.parent.name.removeprefix("epoch_height=")) for path in root.glob("chain_id=*/*/*/manifest.json"))


STEPS = ["mark", "look again", "manifest", "first object", "last object", "mark gone"]


def kill_at(patch: pytest.MonkeyPatch, url: str, step: str) -> None:
    """Let a collection die at a step: before the call that makes it."""
    victim = epoch_layout(1)
    deleted: list[str] = []
    swaps: list[str] = []

    def die(method: str, name: str, _number: int) -> None:
        at = ""
        if method == "swap" and name == catalogue_name(CHAIN_ID):
            swaps.append(name)
            at = "mark" if len(swaps) == 1 else "mark gone"
        elif method == "list" and name == victim.leases_folder:
            at = "look again"
        elif method == "delete" and name.startswith(victim.folder):
            deleted.append(name)
            at = "manifest" if len(deleted) == 1 else "first object" if len(deleted) == 2 else ""
            at = "last object" if step == "last object" and len(deleted) == objects else at
        if at == step:
            raise Killed

    objects = len(list(open_store(url).list(victim.folder)))
    inject(patch, url, die)


@pytest.mark.parametrize("step", STEPS)
def test_a_killed_collection_is_finished_by_the_next(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Whatever the step, the epoch is published whole or has no manifest, and a rerun leaves nothing of it."""
    url = store_with(1, 2)
    whole = {info.name for info in open_store(url).list(epoch_layout(1).folder)}
    with monkeypatch.context() as while_killed, pytest.raises(Killed):
        kill_at(while_killed, url, step)
        collect_epochs(url, CHAIN_ID, RetentionRule(1), deletions_at_once=1)
    left = {info.name for info in open_store(url).list(epoch_layout(1).folder)}
    assert left == whole if step in STEPS[:3] else epoch_layout(1).manifest not in left
    result = collect_epochs(url, CHAIN_ID, RetentionRule(1))
    assert collected(result) == [1]
    assert heights_in(url) == listed(url) == [2]
    assert collect_epochs(url, CHAIN_ID, RetentionRule(1)).collected == ()


@pytest.mark.parametrize("step", STEPS)
def test_a_killed_collection_does_not_finish_what_is_held_since(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """A producer that began the epoch anew is left alone."""
    url = store_with(1, 2)
    with monkeypatch.context() as while_killed, pytest.raises(Killed):
        kill_at(while_killed, url, step)
        collect_epochs(url, CHAIN_ID, RetentionRule(1), deletions_at_once=1)
    Claimant(open_store(url), epoch_layout(1), (0,), this_holder()).acquire()
    before = {info.name for info in open_store(url).list(epoch_layout(1).folder)}
    assert collected(collect_epochs(url, CHAIN_ID, RetentionRule(1))) == []
    assert {info.name for info in open_store(url).list(epoch_layout(1).folder)} == before


def test_a_mark_that_a_killed_collection_left_is_taken_back_where_the_epoch_stays() -> None:
    """Once it is old: a young one may be another collector's."""
    url = store_with(1, 2)
    now = datetime.now(UTC)
    CatalogueWriter(open_store(url), CHAIN_ID).change(lambda catalogue: catalogue.marked(epoch_layout(1), now))
    for after, marked in ((timedelta(minutes=1), True), (timedelta(hours=2), False)):
        assert collected(collect_epochs(url, CHAIN_ID, RetentionRule(2), now=lambda after=after: now + after)) == []  # type: ignore[misc]
        catalogue = read_catalogue(open_store(url), CHAIN_ID)
        assert catalogue is not None and (catalogue.epochs[0].leaving_since is not None) is marked


def test_the_catalogue_loses_epochs_that_are_not_there() -> None:
    """One was deleted by hand."""
    url = store_with(1, 2)
    store = open_store(url)
    for info in list(store.list(epoch_layout(1).folder)):
        store.delete(info.name)
    result = collect_epochs(url, CHAIN_ID, RetentionRule(5))
    assert listed(url) == [2]
    assert any("which is not there" in note for note in result.notes)


def test_a_damaged_manifest_goes_by_count_and_is_named() -> None:
    """That epoch can't be read."""
    url = store_with(1, 2)
    open_store(url).put(epoch_layout(1).manifest, b"rotten")
    result = collect_epochs(url, CHAIN_ID, RetentionRule(1), plan_only=True)
    assert [str(epoch.decision.phase) for epoch in result.epochs] == ["damaged", "published"]
    assert collected(collect_epochs(url, CHAIN_ID, RetentionRule(1))) == [1]


def test_leases_of_long_ago_are_cleared_from_epochs_that_stay() -> None:
    """Killed readers leave them."""
    url = store_with(1)
    store = open_store(url)
    EpochLease(store, epoch_layout(1), "fetch", now=lambda: datetime.now(UTC) - timedelta(days=3)).renew()
    EpochLease(store, epoch_layout(1), "fetch", now=lambda: datetime.now(UTC) - timedelta(hours=3)).renew()
    collect_epochs(url, CHAIN_ID, RetentionRule(1))
    assert len(leases(store, epoch_layout(1))) == 1


def leases(store: Store, layout: EpochLayout) -> list[str]:
    """Return the names of an epoch's leases."""
    found = ((info.name, parse_object_name(info.name)) for info in store.list(layout.folder))
    return [name for name, parsed in found if parsed is not None and parsed.kind is ObjectKind.LEASE]


def test_two_collections_at_once_do_no_harm(tmp_path: Path) -> None:
    """Each deletes what the other has not deleted yet."""
    url = str(tmp_path / "store")
    for epoch_height in (1, 2, 3, 4):
        publish_epoch(url, epoch_height)
    failures: list[BaseException] = []

    def collect() -> None:
        try:
            collect_epochs(url, CHAIN_ID, RetentionRule(1))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=collect) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert heights_in(url) == listed(url) == [4]


def test_a_producer_leaves_an_epoch_alone_that_is_being_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would find parts in place, and its manifest would list them when they are gone."""
    url = store_with(1, 2)
    refused: list[str] = []

    def produce() -> None:
        try:
            with claimed(url, epoch_context(1), ClaimTerms(), SilentProgress()):
                publish_epoch(url, 1)
        except ClaimedError as error:
            refused.append(error.problem)

    with monkeypatch.context() as patch:
        inject(patch, url, meanwhile("delete", "state_part_", produce))
        collect_epochs(url, CHAIN_ID, RetentionRule(1))
    assert heights_in(url) == listed(url) == [2]
    assert refused and "being deleted" in refused[0]


@pytest.mark.parametrize("ignore", [False, True])
def test_a_producer_is_kept_out_by_a_mark_until_it_is_stale(ignore: bool) -> None:
    """A killed collection leaves it; and no claim is left where nothing is produced."""
    url = store_with(1, 2)
    store = open_store(url)
    for age_s, kept_out in ((MARK_STALE_S - 60, True), (MARK_STALE_S + 60, False)):
        marked = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=age_s)
        CatalogueWriter(store, CHAIN_ID).change(lambda catalogue, marked=marked: catalogue.marked(epoch_layout(1), marked))  # type: ignore[misc]
        outcome = pytest.raises(ClaimedError) if kept_out else nullcontext()
        with outcome, claimed(url, epoch_context(1), ClaimTerms(ignore=ignore), SilentProgress()):
            assert not kept_out
        assert store.info(epoch_layout(1).claim) is None
