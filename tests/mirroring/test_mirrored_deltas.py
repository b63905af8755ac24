"""A mirror of epochs with deltas: they go over too, and where they are fewer bytes the parts are rebuilt at the destination."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from pipelines.bucket.chain_catalogue import CatalogueWriter
from pipelines.fetching.fetch_epoch import EpochFetch
from pipelines.keeping.collect_epochs import collect_epochs
from pipelines.keeping.retention import RetentionRule
from pipelines.kernel.choice import choose_kernel
from pipelines.mirroring.mirror_epochs import MirrorRun
from pipelines.mirroring.store_target import MirrorState
from pipelines.producing.rebuild.base_states import find_base_states
from pipelines.producing.rebuild.fetched_rebuild import BaseRebuilder
from pipelines.producing.rebuild.rebuilt_epoch import EpochRebuild
from pipelines.stores.open_store import open_store
from schemas.ids import PartId
from tests.support.delta_epochs import DeltaEpochs
from tests.support.faulty_store import Fault, Schedule
from tests.support.fetches import Recorder
from tests.support.mirrors import contents, mirror, mirror_settings
from tests.support.productions import inject, new_store_url
from tests.support.records import Pairs
from tests.support.stored_epochs import CHAIN_ID

NUM_PARTS = 3


class Killed(BaseException):
    """Nothing cleans up after this."""


def pairs_of(epoch_height: int) -> Pairs:
    """Return records of which every epoch changes one."""
    random = Random(7)
    pairs = [(b"\x00" + f"account{number:03d}.near".encode(), random.randbytes(3000)) for number in range(60)]
    for changed in range(2, epoch_height + 1):
        key, _ = pairs[changed * 10]
        pairs[changed * 10] = (key, Random(changed).randbytes(3000))
    return pairs


@pytest.fixture(scope="module")
def source() -> DeltaEpochs:
    """Epochs 1, 2 and 3, with deltas from each to the next. It must not be changed."""
    epochs = DeltaEpochs()
    for height in (1, 2, 3):
        epochs.publish(height, pairs_of(height), NUM_PARTS)
    epochs.make_delta(1, 2)
    epochs.make_delta(2, 3)
    return epochs


def moved(sizes: dict[str, int], calls: list[str]) -> tuple[int, int]:
    """Return the bytes of parts and of deltas that were asked of the source."""
    asked = set(calls)
    parts = sum(sizes[name] for name in asked if "/state_part_" in name)
    return parts, sum(sizes[name] for name in asked if name.endswith(".arrow"))


def counted(calls: list[str]) -> Schedule:
    """Write down what is read of a store."""

    def count(method: str, name: str, _number: int) -> Fault | None:
        if method == "get":
            calls.append(name)
        return None

    return count


def test_the_second_and_third_epoch_come_by_deltas(source: DeltaEpochs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted at the source: of parts the first epoch's alone; and the copy is equal to the source, deltas too."""
    destination, calls = new_store_url(), list[str]()
    wanted = contents(source.store_url)
    inject(monkeypatch, source.store_url, counted(calls))
    outcomes = mirror(mirror_settings(source.store_url, destination, "1..3", tmp_path / "work"), rebuilds=True)
    assert [(outcome.parts_copied, outcome.parts_rebuilt, outcome.state) for outcome in outcomes] == [
        (NUM_PARTS, 0, MirrorState.COPIED),
        (0, NUM_PARTS, MirrorState.COPIED),
        (0, NUM_PARTS, MirrorState.COPIED),
    ]
    assert contents(destination) == wanted
    sizes = {name: len(data) for name, data in wanted.items()}
    parts, deltas = moved(sizes, calls)
    assert parts == sum(size for name, size in sizes.items() if "epoch_height=1/" in name and "/state_part_" in name)
    assert 0 < deltas == sum(outcome.delta_bytes for outcome in outcomes) < parts / 4
    assert all(calls.count(name) == 1 for name in calls if name.endswith(".arrow")), "a delta is moved once"


def test_a_plan_counts_what_is_moved(source: DeltaEpochs, tmp_path: Path) -> None:
    """Of the second epoch the first will be there, and so on: the bytes are those that the run moves."""
    settings = mirror_settings(source.store_url, new_store_url(), "1..3", tmp_path / "work")
    planned = MirrorRun(settings, Recorder(), Random(1), runner=source.runner).plan()
    outcomes = mirror(settings, rebuilds=True)
    ways = [[shard.way for shard in plan.shards] for plan in planned]
    assert [[way and [step.base_epoch_height for step in way.steps] for way in of_epoch] for of_epoch in ways] == [[None], [[1]], [[2]]]
    whole = [sum(part.size for shard in plan.shards for part in shard.fetched) for plan in planned]
    deltas = [sum(way.size for way in of_epoch if way is not None) for of_epoch in ways]
    assert whole == [outcome.bytes_copied for outcome in outcomes]
    assert deltas == [outcome.delta_bytes for outcome in outcomes]


def test_without_rebuilding_whole_parts_go_over(source: DeltaEpochs, tmp_path: Path) -> None:
    """And deltas beside them."""
    destination = new_store_url()
    outcomes = mirror(mirror_settings(source.store_url, destination, "1..3", tmp_path / "work"))
    assert [outcome.parts_copied for outcome in outcomes] == [NUM_PARTS] * 3
    assert contents(destination) == contents(source.store_url)


def test_deltas_that_are_listed_later_come_with_the_next_run(tmp_path: Path) -> None:
    """No part is moved for them."""
    epochs, destination = DeltaEpochs(), new_store_url()
    for height in (1, 2):
        epochs.publish(height, pairs_of(height), NUM_PARTS)
    mirror(mirror_settings(epochs.store_url, destination, "1..2", tmp_path / "work"), rebuilds=True)
    epochs.make_delta(1, 2)
    outcomes = mirror(mirror_settings(epochs.store_url, destination, "1..2", tmp_path / "work"), rebuilds=True)
    assert [(outcome.state, outcome.parts_copied, outcome.parts_rebuilt) for outcome in outcomes] == [
        (MirrorState.WHOLE, 0, 0),
        (MirrorState.COPIED, 0, 0),
    ]
    assert contents(destination) == contents(epochs.store_url)


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_delta_that_is_not_right_is_left_out_and_costs_whole_parts(damage: str, tmp_path: Path) -> None:
    """A wrong delta costs time, and never a byte; the next run asks for it again."""
    epochs, destination, recorder = DeltaEpochs(), new_store_url(), Recorder()
    for height in (1, 2):
        epochs.publish(height, pairs_of(height), NUM_PARTS)
    name = epochs.make_delta(1, 2).object_name(0)
    store = open_store(epochs.store_url)
    right = store.get(name, 0, 1 << 20)
    store.delete(name)
    if damage == "changed":
        store.put(name, right[:-9] + bytes([right[-9] ^ 1]) + right[-8:])
    outcomes = mirror(mirror_settings(epochs.store_url, destination, "1..2", tmp_path / "work"), recorder, rebuilds=True)
    assert [(outcome.parts_copied + outcome.parts_rebuilt, outcome.error) for outcome in outcomes] == [(NUM_PARTS, None)] * 2
    assert outcomes[1].parts_copied, "the parts with changes"
    assert any("is left out" in warning for warning in outcomes[1].warnings)
    assert name not in contents(destination)
    store.put(name, right)
    mirror(mirror_settings(epochs.store_url, destination, "1..2", tmp_path / "work"), rebuilds=True)
    assert contents(destination) == contents(epochs.store_url)


def test_a_base_that_was_damaged_at_the_destination_costs_the_parts_that_need_it(source: DeltaEpochs, tmp_path: Path) -> None:
    """Those are brought whole, the others are rebuilt."""
    destination = new_store_url()
    mirror(mirror_settings(source.store_url, destination, "1", tmp_path / "work"))
    name = source.layout(1).state_part(0, PartId(0, NUM_PARTS))
    store = open_store(destination)
    data = store.get(name, 0, 1 << 20)
    store.put(name, bytes([data[0] ^ 1]) + data[1:])
    (outcome,) = mirror(mirror_settings(source.store_url, destination, "2", tmp_path / "work"), rebuilds=True)
    assert outcome.state is MirrorState.COPIED
    assert 0 < outcome.parts_copied < NUM_PARTS and outcome.parts_copied + outcome.parts_rebuilt == NUM_PARTS
    folder = source.layout(2).folder
    assert contents(destination, lambda name: name.startswith(folder)) == contents(source.store_url, lambda name: name.startswith(folder))


def test_twenty_kills_on_the_way_leave_the_same(source: DeltaEpochs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every second write, with rebuilding under way or not; until nothing is left to be put."""
    destination, wanted, kills = new_store_url(), contents(source.store_url), 0
    while True:
        left = [1]

        def kill(method: str, name: str, _number: int, left: list[int] = left) -> None:
            if method in ("put", "swap") and "claim" not in name:
                left[0] -= 1
                if left[0] < 0:
                    raise Killed

        with monkeypatch.context() as patch:
            inject(patch, destination, kill)
            try:
                mirror(mirror_settings(source.store_url, destination, "1..3", tmp_path / "work"), rebuilds=True)
                break
            except Killed:
                kills += 1
        found = contents(destination)
        for height in (1, 2, 3):
            folder = source.layout(height).folder
            if source.layout(height).manifest in found:
                assert all(found.get(name) == data for name, data in wanted.items() if name.startswith(f"{folder}/"))
    assert kills >= 20
    assert contents(destination) == wanted


def test_a_ladder_is_mirrored_by_whoever_has_its_whole_epochs(tmp_path: Path) -> None:
    """Of an epoch whose parts the source let go the destination gets them rebuilt."""
    epochs, destination = DeltaEpochs(), new_store_url()
    for height in (1, 2, 3):
        epochs.publish(height, pairs_of(height), NUM_PARTS)
    epochs.make_delta(1, 2)
    wanted = epochs.parts(2)
    rebuild = EpochRebuild(epochs.runner, choose_kernel("auto"), epochs.store_url)
    collect_epochs(epochs.store_url, CHAIN_ID, RetentionRule(3, full_every=3), prove=rebuild.why_not)
    assert epochs.parts(1) and epochs.parts(3) and not epochs.parts(2)
    outcomes = mirror(mirror_settings(epochs.store_url, destination, "1..3", tmp_path / "work"), rebuilds=True)
    assert [(outcome.parts_copied, outcome.parts_rebuilt) for outcome in outcomes] == [(NUM_PARTS, 0), (0, NUM_PARTS), (NUM_PARTS, 0)]
    assert epochs.parts(2, destination) == wanted


def test_parts_that_a_collection_at_the_destination_let_go_do_not_come_back(source: DeltaEpochs, tmp_path: Path) -> None:
    """They can be rebuilt there; an epoch of which some other part is lost gets it back."""
    destination = new_store_url()
    mirror(mirror_settings(source.store_url, destination, "1..3", tmp_path / "work"))
    rebuild = EpochRebuild(source.runner, choose_kernel("auto"), destination)
    collect_epochs(destination, CHAIN_ID, RetentionRule(3, full_every=3), prove=rebuild.why_not)
    store = open_store(destination)
    assert not source.parts(2, destination)
    store.delete(source.layout(3).state_part(0, PartId(0, NUM_PARTS)))
    outcomes = mirror(mirror_settings(source.store_url, destination, "1..3", tmp_path / "work"))
    assert [(outcome.state, outcome.parts_copied) for outcome in outcomes] == [
        (MirrorState.WHOLE, 0),
        (MirrorState.WHOLE, 0),
        (MirrorState.COPIED, 1),
    ]
    assert not source.parts(2, destination)


def test_an_epoch_of_a_ladder_is_fetched_out_of_its_own_bucket(tmp_path: Path) -> None:
    """Though that moves more bytes than its parts have: they are not there."""
    epochs, into = DeltaEpochs(), tmp_path / "into"
    for height in (1, 2, 3):
        epochs.publish(height, pairs_of(height), NUM_PARTS)
    epochs.make_delta(1, 2)
    wanted = epochs.parts(2)
    rebuild = EpochRebuild(epochs.runner, choose_kernel("auto"), epochs.store_url)
    collect_epochs(epochs.store_url, CHAIN_ID, RetentionRule(3, full_every=3), prove=rebuild.why_not)
    settings = mirror_settings(epochs.store_url, "", "2", into).fetch
    rebuilder = BaseRebuilder(epochs.store_url, epochs.runner, choose_kernel("auto"), settings.policy)
    EpochFetch(replace(settings, epoch="2", rebuilder=rebuilder), Recorder()).run()
    assert epochs.parts(2, str(into)) == wanted


@pytest.mark.parametrize("hint", ["parts are there", "nothing is said", "a way that is none"])
def test_a_catalogue_that_lies_costs_no_part_and_few_bytes(hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that parts are gone that are there: they are taken whole, for that is less. It says nothing, or a wrong way: the right one is found."""
    epochs, into, calls = DeltaEpochs(), tmp_path / "into", list[str]()
    for height in (1, 2):
        epochs.publish(height, pairs_of(height), NUM_PARTS)
    epochs.make_delta(1, 2)
    wanted, store = epochs.parts(2), open_store(epochs.store_url)
    if hint != "parts are there":
        for name in wanted:
            store.delete(name)
    if hint != "nothing is said":
        steps = (epochs.layout(1),) if hint == "parts are there" else (epochs.layout(3), epochs.layout(2))
        CatalogueWriter(store, CHAIN_ID).change(lambda catalogue: catalogue.with_steps(epochs.layout(2), steps))
    settings = mirror_settings(epochs.store_url, "", "2", into).fetch
    # Its base is farther away than the epoch itself: whole parts are less, where they are there.
    far = 2 * sum(map(len, wanted.values()))
    states = tuple(replace(state, remote_size=far) for state in find_base_states(epochs.store_url, "auto"))
    rebuilder = BaseRebuilder(epochs.store_url, epochs.runner, choose_kernel("auto"), settings.policy, states=states)
    inject(monkeypatch, epochs.store_url, counted(calls))
    result = EpochFetch(replace(settings, epoch="2", rebuilder=rebuilder), Recorder()).run()
    assert epochs.parts(2, str(into)) == wanted
    (shard,) = result.shards
    assert (len(shard.fetched), len(shard.rebuilt)) == ((NUM_PARTS, 0) if hint == "parts are there" else (0, NUM_PARTS))
