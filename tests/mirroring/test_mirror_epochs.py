"""A mirror: equal to its source, resumed, incremental, and never in anybody's way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines.bucket.chain_catalogue import CatalogueWriter, read_catalogue
from pipelines.bucket.epoch_claim import Claimant
from pipelines.bucket.holder_process import this_holder
from pipelines.bucket.published_epoch import read_manifest
from pipelines.bucket.read_latest import read_latest
from pipelines.mirroring.mirror_epochs import MirroredEpoch, MirrorRun
from pipelines.mirroring.store_target import MirrorState
from pipelines.producing.claimed_production import ClaimTerms
from pipelines.stores.open_store import open_store
from schemas.errors import (
    ClaimedError,
    EpochNotReadyError,
    FetchError,
    InvalidInputError,
    ManifestError,
    ObjectMismatchError,
    RollbackError,
    SignatureError,
    StoreFullError,
)
from schemas.ids import PartId
from schemas.published.catalogue import Catalogue
from schemas.published.object_layout import ObjectKind, latest_name, parse_object_name
from tests.support.fault_server import fault_server
from tests.support.faulty_store import Fault, Schedule
from tests.support.fetches import Recorder
from tests.support.folder_server import folder_server
from tests.support.mirrors import contents, mirror, mirror_settings, policy_of
from tests.support.productions import inject, meanwhile, new_store_url
from tests.support.servers import aws_environment, make_s3_bucket, moto_server
from tests.support.stored_bytes import stored_bytes
from tests.support.stored_epochs import CHAIN_ID, NUM_PARTS, epoch_layout, publish_epoch, store_with


class Killed(BaseException):
    """Nothing cleans up after this."""


@pytest.fixture(scope="module")
def source() -> str:
    """A store with three epochs. It must not be changed."""
    return store_with(1, 2, 3)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A mirror's own folder."""
    return tmp_path / "work"


def states(outcomes: list[MirroredEpoch]) -> dict[int, MirrorState | None]:
    """Return what became of each epoch, by height."""
    return {outcome.layout.epoch_height: outcome.state for outcome in outcomes if outcome.layout is not None}


def failure(outcomes: list[MirroredEpoch]) -> Exception:
    """Return the error of the only outcome."""
    (outcome,) = outcomes
    assert outcome.error is not None and outcome.state is None
    return outcome.error


def counted(calls: list[tuple[str, str]], then: Schedule = lambda *_: None) -> Schedule:
    """Write down the calls of a store."""

    def count(method: str, name: str, number: int) -> Fault | None:
        calls.append((method, name))
        return then(method, name, number)

    return count


def visible(url: str) -> set[int]:
    """Return the heights of the epochs that have a manifest; of each, all that it lists must be there and right."""
    store, found = open_store(url), set()
    for info in store.list():
        parsed = parse_object_name(info.name)
        if parsed is not None and parsed.kind is ObjectKind.MANIFEST and parsed.epoch is not None:
            found.add(parsed.epoch.epoch_height)
    return found


def test_a_mirror_of_three_epochs_is_equal_to_its_source(source: str, work: Path, tmp_path: Path) -> None:
    """Byte for byte, in a folder, pointer and catalogue too; no claim is left."""
    destination = str(tmp_path / "mine")
    outcomes = mirror(mirror_settings(source, destination, "1..3", work))
    assert states(outcomes) == dict.fromkeys((1, 2, 3), MirrorState.COPIED)
    assert [outcome.parts_copied for outcome in outcomes] == [NUM_PARTS] * 3
    assert contents(destination) == contents(source)
    assert not list((tmp_path / "mine").rglob("claim.json"))
    assert not [path for path in work.rglob("*") if path.is_file() and path.name != "lock" and not path.name.startswith("accepted-")]


@pytest.mark.slow
def test_from_a_bucket_into_a_bucket(work: Path) -> None:
    """Each object of a part goes out once, and comes in once to be read back; a second run moves no part."""
    with aws_environment(), moto_server() as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        for bucket in ("theirs", "mine"):
            make_s3_bucket(endpoint, bucket)
        publish_epoch("s3://theirs/near", 7)
        first = mirror(mirror_settings("s3://theirs/near", "s3://mine/near", "latest", work))
        assert contents("s3://mine/near") == contents("s3://theirs/near")
        (second,) = mirror(mirror_settings("s3://theirs/near", "s3://mine/near", "7", work))
    assert states(first) == {7: MirrorState.COPIED}
    assert (second.state, second.parts_copied, second.parts_there) == (MirrorState.WHOLE, 0, NUM_PARTS)
    assert first[0].bytes_copied <= first[0].bytes_received <= 2 * first[0].bytes_copied


def test_a_second_run_moves_documents_alone(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No part is read at either end, and nothing is put."""
    source, destination = store_with(1, 2), new_store_url()
    mirror(mirror_settings(source, destination, "1..2", work))
    read: list[tuple[str, str]] = []
    inject(monkeypatch, source, counted(read))
    assert states(mirror(mirror_settings(source, destination, "1..2", work))) == dict.fromkeys((1, 2), MirrorState.WHOLE)
    assert not [name for method, name in read if method == "get" and "state_part" in name]
    monkeypatch.undo()
    written: list[tuple[str, str]] = []
    inject(monkeypatch, destination, counted(written))
    mirror(mirror_settings(source, destination, "1..2", work))
    assert not [call for call in written if call[0] in ("put", "swap", "delete") or (call[0] == "get" and "state_part" in call[1])]


def test_a_mirror_that_is_killed_at_any_write_goes_on_where_it_was(source: str, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is through: what is visible is whole each time, and no part that was put is put again."""
    destination = new_store_url()
    wanted = contents(source)
    puts: list[str] = []
    kills = left = 0

    def kill(method: str, name: str, _number: int) -> None:
        nonlocal left
        if method in ("put", "swap") and "claim" not in name:
            left -= 1
            if left < 0:
                raise Killed
            puts.append(name)

    while True:
        left = 2
        with monkeypatch.context() as patch:
            inject(patch, destination, kill)
            try:
                # Of another process than the one before, since that one's claim is still there.
                mirror(mirror_settings(source, destination, "1..3", work))
                break
            except Killed:
                kills += 1
        found = contents(destination)
        for height in visible(destination):
            folder = epoch_layout(height).folder
            assert all(found.get(name) == data for name, data in wanted.items() if name.startswith(f"{folder}/")), height
    assert kills >= 15
    assert contents(destination) == wanted
    parts = [name for name in puts if "state_part" in name]
    assert len(parts) == len(set(parts)) == 3 * NUM_PARTS


@pytest.mark.parametrize("fault", ["flip", "short"])
def test_a_source_with_wrong_bytes_is_found_out_and_others_are_asked(fault: str, work: Path, tmp_path: Path) -> None:
    """It is not asked for the next epoch either."""
    root, destination = tmp_path / "theirs", new_store_url()
    for height in (1, 2):
        publish_epoch(str(root), height)
    with fault_server(root, tmp_path / "log", fault) as liar:
        outcomes = mirror(mirror_settings(liar.url, destination, "1..2", work, str(root)))
        asked = [request for request in liar.requests if epoch_layout(2).folder in request and "state_part" in request]
    assert contents(destination) == contents(str(root))
    assert [report.source_id for report in outcomes[0].sources if report.banned] == ([liar.url] if fault != "short" else [])
    assert fault == "short" or not asked


def test_where_no_source_is_right_nothing_is_published(work: Path, tmp_path: Path) -> None:
    """What could be had is kept, invisible."""
    root, destination = tmp_path / "theirs", new_store_url()
    publish_epoch(str(root), 1)
    with fault_server(root, tmp_path / "log", "flip") as liar:
        assert isinstance(failure(mirror(mirror_settings(liar.url, destination, "1", work))), FetchError)
    assert not visible(destination)
    assert read_latest(open_store(destination), CHAIN_ID) is None
    assert read_catalogue(open_store(destination), CHAIN_ID) is None


def test_an_unsigned_epoch_is_refused_before_anything_is_put(work: Path) -> None:
    """By the keys that are pinned."""
    source, destination = store_with(1), new_store_url()
    outcomes = mirror(mirror_settings(source, destination, "1", work, policy=policy_of("second")))
    assert isinstance(failure(outcomes), SignatureError)
    assert not list(open_store(destination).list())


def test_one_epoch_that_fails_leaves_the_others_alone(work: Path) -> None:
    """And a height that was never published is told."""
    source, destination = store_with(1, 2, 4), new_store_url()
    open_store(source).delete(epoch_layout(2).state_part(0, PartId(1, NUM_PARTS)))
    run = MirrorRun(mirror_settings(source, destination, "1..4", work), Recorder())
    outcomes = run.run()
    assert [type(outcome.error) for outcome in outcomes] == [type(None), FetchError, type(None)]
    assert visible(destination) == {1, 4}
    assert run.absent == (3,)


def test_the_pointer_of_a_destination_with_a_newer_epoch_stays(source: str, work: Path) -> None:
    """The catalogue has both."""
    destination = store_with(9)
    mirror(mirror_settings(source, destination, "2", work))
    pointer, catalogue = read_latest(open_store(destination), CHAIN_ID), read_catalogue(open_store(destination), CHAIN_ID)
    assert pointer is not None and pointer.epoch_height == 9
    assert catalogue is not None and [epoch.epoch_height for epoch in catalogue.epochs] == [2, 9]


def test_a_new_revision_is_taken_over_and_moves_no_part_again(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Earlier revisions stay beside it, and come with it where they are not there."""
    source, destination, another = new_store_url(), new_store_url(), new_store_url()
    publish_epoch(source, 1, complete=False)
    mirror(mirror_settings(source, destination, "1", work))
    assert read_latest(open_store(destination), CHAIN_ID) is None
    publish_epoch(source, 1)
    read: list[tuple[str, str]] = []
    with monkeypatch.context() as patch:
        inject(patch, source, counted(read))
        (outcome,) = mirror(mirror_settings(source, destination, "1", work))
    assert (outcome.state, outcome.revision, outcome.parts_copied) == (MirrorState.COPIED, 2, 0)
    assert not [name for method, name in read if method == "get" and "state_part" in name]
    mirror(mirror_settings(source, another, "1", work))
    assert contents(destination) == contents(another) == contents(source)
    assert epoch_layout(1).manifest_revision(1) in contents(another)


def test_a_later_revision_at_the_destination_stays(work: Path) -> None:
    """A mirror never goes back."""
    source, destination = new_store_url(), new_store_url()
    publish_epoch(source, 1, complete=False)
    mirror(mirror_settings(source, destination, "1", work))
    publish_epoch(destination, 1)
    before = contents(destination)
    assert states(mirror(mirror_settings(source, destination, "1", work))) == {1: MirrorState.NEWER}
    assert contents(destination) == before


def test_a_later_revision_that_comes_up_meanwhile_stays(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A producer at the destination that takes no notice of claims is not set back either."""
    source, destination = new_store_url(), new_store_url()
    publish_epoch(source, 1, complete=False)
    copied: dict[str, bytes] = {}

    def publish() -> None:
        open_store(destination).put(epoch_layout(1).manifest, stored_bytes(open_store(source), epoch_layout(1).manifest))
        publish_epoch(destination, 1)
        copied.update(contents(destination))

    inject(monkeypatch, destination, meanwhile("info", epoch_layout(1).manifest, publish))
    mirror(mirror_settings(source, destination, "1", work))
    assert contents(destination)[epoch_layout(1).manifest] == copied[epoch_layout(1).manifest]


def test_a_revision_of_somebody_else_that_comes_up_meanwhile_is_no_fault_of_the_store(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is another publication, and nothing of it is written over."""
    source, destination = store_with(1), new_store_url()
    theirs = store_with(2)
    other = stored_bytes(open_store(theirs), epoch_layout(2).manifest)
    name = epoch_layout(1).manifest_revision(1)
    inject(monkeypatch, destination, meanwhile("put", name, lambda: open_store(destination).put(name, other)))
    assert isinstance(failure(mirror(mirror_settings(source, destination, "1", work))), ManifestError)
    assert not visible(destination) and contents(destination)[name] == other


def test_another_publication_of_the_epoch_is_not_written_over(work: Path) -> None:
    """Its readers rely on it."""
    source, destination = store_with(1), new_store_url()
    publish_epoch(destination, 1, web_seeds=("https://mirror.example/near/",))
    before = contents(destination)
    error = failure(mirror(mirror_settings(source, destination, "1", work)))
    assert isinstance(error, ManifestError) and "another publication" in str(error)
    assert contents(destination) == before


def test_signatures_at_the_destination_stay_and_new_ones_are_added(work: Path) -> None:
    """Of manifest and statement, whoever has copied them first."""
    source, destination = new_store_url(), new_store_url()
    publish_epoch(source, 1)
    mirror(mirror_settings(source, destination, "1", work))
    publish_epoch(destination, 1, key="second")
    publish_epoch(source, 1, key="third")
    (outcome,) = mirror(mirror_settings(source, destination, "1", work))
    stored = read_manifest(open_store(destination), epoch_layout(1))
    assert outcome.state is MirrorState.COPIED
    assert stored is not None and len(stored.envelope.signatures) == 3
    assert states(mirror(mirror_settings(source, destination, "1", work))) == {1: MirrorState.WHOLE}


@pytest.mark.parametrize("ignores", [False, True])
def test_the_claim_of_another_writer_keeps_a_mirror_away_unless_it_is_ignored(ignores: bool, source: str, work: Path) -> None:
    """Nothing is put meanwhile."""
    destination = new_store_url()
    rival = Claimant(open_store(destination), epoch_layout(1), (0,), replace(this_holder(), machine="")).acquire()
    settings = mirror_settings(source, destination, "1", work)
    settings = replace(settings, terms=replace(settings.terms, claim=ClaimTerms(ignore=ignores)))
    outcomes = mirror(settings)
    if ignores:
        assert states(outcomes) == {1: MirrorState.COPIED}
    else:
        assert isinstance(failure(outcomes), ClaimedError)
        assert list(contents(destination)) == []
    rival.release()


def test_an_epoch_that_another_writer_holds_is_tried_again_when_the_others_are_done(
    source: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then it may be free, or whole."""
    destination = new_store_url()
    rival = Claimant(open_store(destination), epoch_layout(1), (0,), replace(this_holder(), machine="")).acquire()
    inject(monkeypatch, destination, meanwhile("put", epoch_layout(2).manifest_revision(1), rival.release))
    outcomes = mirror(mirror_settings(source, destination, "1..2", work))
    assert sorted(states(outcomes).items()) == [(1, MirrorState.COPIED), (2, MirrorState.COPIED)]


def test_an_epoch_that_is_being_deleted_is_left_alone(source: str, work: Path) -> None:
    """What a mirror found in place may be gone by the time that its manifest lists it."""
    destination = new_store_url()
    mirror(mirror_settings(source, destination, "1..2", work))
    open_store(destination).delete(epoch_layout(1).manifest)
    CatalogueWriter(open_store(destination), CHAIN_ID).change(
        lambda catalogue: catalogue.marked(epoch_layout(1), datetime.now(UTC).replace(microsecond=0))
    )
    assert isinstance(failure(mirror(mirror_settings(source, destination, "1", work))), ClaimedError)


def test_two_mirrors_at_once_end_in_the_same(source: str, tmp_path: Path) -> None:
    """The second does what the first does not hold, and waits for nothing."""
    destination = str(tmp_path / "mine")
    found: list[MirroredEpoch] = []

    def run(name: str) -> None:
        found.extend(mirror(mirror_settings(source, destination, "1..3", tmp_path / name)))

    threads = [threading.Thread(target=run, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert contents(destination) == contents(source)
    assert all(outcome.error is None or isinstance(outcome.error, ClaimedError) for outcome in found)
    assert {height for height, state in states(found).items() if state is MirrorState.COPIED} <= {1, 2, 3}


def test_a_full_destination_ends_the_run_and_the_next_one_goes_on(source: str, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing half-written."""
    destination = new_store_url()

    def full(method: str, name: str, number: int) -> None:
        if method == "put" and "_000003_of" in name:
            raise StoreFullError(problem="the store is full", where=name)

    with monkeypatch.context() as patch:
        inject(patch, destination, full)
        with pytest.raises(StoreFullError):
            mirror(mirror_settings(source, destination, "1..2", work))
    kept = contents(destination)
    assert not visible(destination) and all(contents(source)[name] == data for name, data in kept.items())
    mirror(mirror_settings(source, destination, "1..2", work))
    assert visible(destination) == {1, 2}


def test_a_store_that_keeps_other_bytes_than_it_was_given_gets_no_manifest(
    source: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every object is read back."""
    destination = new_store_url()

    def torn(method: str, name: str, _number: int) -> Fault | None:
        return Fault.TORN if method == "put" and "_000002_of" in name else None

    inject(monkeypatch, destination, torn)
    assert isinstance(failure(mirror(mirror_settings(source, destination, "1", work))), ObjectMismatchError)
    assert not visible(destination)


def test_what_lies_there_without_a_manifest_is_judged(source: str, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A right part is kept and not fetched; one with a changed byte is replaced."""
    destination = new_store_url()
    right, wrong = (epoch_layout(1).state_part(0, PartId(idx, NUM_PARTS)) for idx in (0, 1))
    data = stored_bytes(open_store(source), wrong)
    open_store(destination).put(right, stored_bytes(open_store(source), right))
    open_store(destination).put(wrong, data[:-1] + bytes([data[-1] ^ 1]))
    written: list[tuple[str, str]] = []
    inject(monkeypatch, destination, counted(written))
    (outcome,) = mirror(mirror_settings(source, destination, "1", work))
    assert (outcome.parts_there, outcome.parts_copied) == (1, NUM_PARTS - 1)
    assert not [call for call in written if call[0] in ("put", "swap") and call[1] == right]
    assert all(contents(source)[name] == data for name, data in contents(destination).items() if "epoch_height=" in name)


def test_an_object_that_was_lost_comes_back(source: str, work: Path) -> None:
    """Of a published epoch too: that and nothing else is copied."""
    destination = new_store_url()
    mirror(mirror_settings(source, destination, "1..3", work))
    open_store(destination).delete(epoch_layout(2).state_part(0, PartId(3, NUM_PARTS)))
    open_store(destination).delete(epoch_layout(3).torrent(0))
    outcomes = mirror(mirror_settings(source, destination, "1..3", work))
    assert [outcome.parts_copied for outcome in outcomes] == [0, 1, 0]
    assert states(outcomes) == {1: MirrorState.WHOLE, 2: MirrorState.COPIED, 3: MirrorState.COPIED}
    assert contents(destination) == contents(source)


def test_a_mirror_that_follows_takes_every_later_epoch(work: Path) -> None:
    """And goes on when a look at the source fails."""
    source, destination = store_with(1, 2), new_store_url()
    steps: Iterator[Callable[[], object]] = iter(
        [
            lambda: publish_epoch(source, 3),
            lambda: open_store(source).put(latest_name(CHAIN_ID), b"damaged"),
            lambda: publish_epoch(source, 4),
        ]
    )

    def sleep(_seconds: float) -> None:
        step = next(steps, None)
        if step is None:
            raise Killed
        step()

    run = MirrorRun(mirror_settings(source, destination, "latest..", work, once=False), Recorder(), sleep=sleep)
    with pytest.raises(Killed):
        run.run()
    assert visible(destination) == {2, 3, 4}


def test_a_mirror_that_follows_waits_for_the_first_epoch(work: Path) -> None:
    """A source may be set up after its mirror."""
    source, destination = new_store_url(), new_store_url()
    published: list[int] = []

    def sleep(_seconds: float) -> None:
        if published:
            raise Killed
        published.append(1)
        publish_epoch(source, 1)

    with pytest.raises(Killed):
        MirrorRun(mirror_settings(source, destination, "latest..", work, once=False), Recorder(), sleep=sleep).run()
    assert visible(destination) == {1}


def test_a_latest_epoch_that_went_back_is_refused(work: Path) -> None:
    """The work folder remembers what a key has signed."""
    source, older, destination = store_with(1, 2), store_with(1), new_store_url()
    mirror(mirror_settings(source, destination, "latest", work))
    assert isinstance(failure(mirror(mirror_settings(older, destination, "latest", work))), RollbackError)


def test_epochs_are_found_without_a_catalogue(work: Path) -> None:
    """By the listing of a store."""
    source, destination = store_with(1, 2, 3), new_store_url()
    open_store(source).delete(f"chain_id={CHAIN_ID}/catalogue.json")
    assert set(states(mirror(mirror_settings(source, destination, "2..3", work)))) == {2, 3}
    assert set(states(mirror(mirror_settings(source, destination, "1..", work)))) == {1, 2, 3}


def test_a_plan_writes_nothing(source: str, work: Path) -> None:
    """And says what is there."""
    destination = new_store_url()
    mirror(mirror_settings(source, destination, "1", work))
    before = contents(destination)
    planned = MirrorRun(mirror_settings(source, destination, "1..2", work), Recorder()).plan()
    assert [sum(len(shard.missing) for shard in plan.shards) for plan in planned] == [0, NUM_PARTS]
    assert contents(destination) == before


def test_what_can_never_be_is_refused(source: str, work: Path) -> None:
    """A store mirrored into itself; a range that nothing is published of."""
    with pytest.raises(InvalidInputError):
        mirror(mirror_settings(source, source, "1", work))
    with pytest.raises(EpochNotReadyError):
        mirror(mirror_settings(source, new_store_url(), "7..9", work))


def test_what_does_not_belong_there_is_named_and_left_alone(source: str, work: Path) -> None:
    """Nodes count it: the epoch is mirrored, and the result says so each time. What lies elsewhere is nobody's matter."""
    destination, layout = new_store_url(), epoch_layout(1)
    store = open_store(destination)
    foreign = [
        f"{layout.shard_folder(0)}/notes.txt",
        layout.state_part(0, PartId(0, NUM_PARTS + 1)),
        f"{layout.folder}/readme.md",
        "else.txt",
    ]
    for name in foreign:
        store.put(name, b"mine")
    for state in (MirrorState.COPIED, MirrorState.WHOLE):
        (outcome,) = mirror(mirror_settings(source, destination, "1", work))
        assert outcome.state is state
        assert [name for name in foreign if any(name in warning for warning in outcome.warnings)] == foreign[:2]
    assert all(stored_bytes(store, name) == b"mine" for name in foreign)


def test_a_catalogue_that_lies_is_found_out(work: Path, tmp_path: Path) -> None:
    """It lists epochs that are not there, revisions that never were, and ways of ten thousand rungs: those fail alone, and the rest is mirrored."""
    folder, destination = tmp_path / "source", new_store_url()
    for height in (1, 2):
        publish_epoch(f"file://{folder}", height)
    writer = CatalogueWriter(open_store(str(folder)), CHAIN_ID)
    absent = epoch_layout(3)

    def lie(catalogue: Catalogue) -> Catalogue:
        first, second = catalogue.epochs
        assert first.listing is not None
        ghost = replace(first, epoch_height=3, epoch_id=absent.epoch_id)
        newer = replace(second, listing=replace(first.listing, revision=7), steps=tuple((1, str(absent.epoch_id)) for _ in range(999)))
        return Catalogue(CHAIN_ID, (first, newer, ghost))

    writer.change(lie)
    with folder_server(folder) as url:
        outcomes = mirror(mirror_settings(url, destination, "1..3", work))
    assert [outcome.state for outcome in outcomes] == [MirrorState.COPIED, MirrorState.COPIED, None]
    assert isinstance(outcomes[2].error, EpochNotReadyError | FetchError)
    assert visible(destination) == {1, 2}
    there = read_catalogue(open_store(destination), CHAIN_ID)
    assert there is not None and [epoch.steps for epoch in there.epochs] == [(), ()]
