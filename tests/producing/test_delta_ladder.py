"""Which deltas an epoch gets, and that none of them can end a production."""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import pytest

from pipelines.bucket.published_deltas import read_delta_statement
from pipelines.bucket.published_epoch import read_manifest
from pipelines.dataset.delta import find_delta
from pipelines.execution.executor import Task, TaskNeeds
from pipelines.execution.stage_runner import StageRunner
from pipelines.kernel.choice import choose_kernel
from pipelines.producing.deltas.delta_ladder import DeltaLadder
from pipelines.producing.deltas.ladder import ladder_bases, ladder_heights
from pipelines.producing.deltas.ladder_savings import EpochBytes, LadderSavings
from pipelines.producing.deltas.make_deltas import DeltaInputs, DeltaProduction
from pipelines.producing.deltas.shard_delta import child_ranges
from pipelines.producing.rebuild import rebuild_shard
from pipelines.producing.rebuild.rebuild_published import PublishedRebuild
from pipelines.stores.open_store import open_store
from schemas.errors import EpochNotReadyError
from schemas.ids import CryptoHash, ShardUId
from schemas.nearcore.shard_layout import SINGLE_SHARD, ShardLayout
from schemas.nearcore.trie_key import account_key, contract_data_key, delayed_receipt_indices_key
from schemas.published.delta_statement import WHOLE_BASE
from tests.support.delta_epochs import DeltaEpochs
from tests.support.list_source import context_of
from tests.support.productions import PAIRS, inject, signer
from tests.support.records import Pairs

R = TypeVar("R")


@pytest.mark.parametrize(
    ("height", "every", "published", "expected"),
    [
        (17, 8, range(10, 17), (16,)),
        (16, 8, range(1, 16), (8, 15)),
        (20, 8, range(10, 20), (16, 19)),
        (20, 8, [10, 17], (17,)),
        (20, 1, range(20), (19,)),
        (20, 8, [], ()),
        (20, 8, [20, 21], ()),
    ],
)
def test_a_ladder_has_the_epoch_before_and_the_last_rung(height: int, every: int, published: list[int], expected: tuple[int, ...]) -> None:
    """As far as they are published."""
    assert ladder_heights(height, every, published) == expected


def test_deltas_are_listed_by_a_revision_of_their_own_and_made_once() -> None:
    """The epoch was published before; a rerun writes nothing, and brings back an object that is lost."""
    epochs = DeltaEpochs()
    for height in range(1, 5):
        epochs.publish(height, PAIRS[height:])
    store = open_store(epochs.store_url)
    ladder = DeltaLadder(2, epochs.work_url, "auto")
    context = replace(context_of(None), epoch_height=4, epoch_id=epochs.layout(4).epoch_id)
    assert [one.epoch_height for one in ladder_bases(store, epochs.layout(4), 2)] == [2, 3]
    made = ladder.make(epochs.runner, epochs.publisher, context)
    assert [(one.base_epoch_height, one.objects) for one in made] == [(2, 1), (3, 1)]
    assert epochs.manifest(4).deltas == made
    assert epochs.manifest(4).revision == 2
    assert not ladder.make(epochs.runner, epochs.publisher, context)
    lost = epochs.delta(2, 4)
    content = store.get(lost.object_name(0), 0, 1 << 20)
    store.delete(lost.object_name(0))
    assert ladder.make(epochs.runner, epochs.publisher, context) == made[:1]
    assert store.get(lost.object_name(0), 0, 1 << 20) == content
    assert epochs.manifest(4).revision == 2
    assert not list(open_store(epochs.work_url).list())


def test_a_later_revision_keeps_the_deltas() -> None:
    """A producer that knows nothing of them publishes the epoch again."""
    epochs = DeltaEpochs()
    for height in (1, 2):
        epochs.publish(height, PAIRS[height:])
    epochs.make_delta(1, 2)
    listed = epochs.manifest(2).deltas
    other = replace(epochs.publisher, signer=signer("second"), web_seeds=("https://example.org/epoch/",))
    stored = read_manifest(open_store(epochs.store_url), epochs.layout(2))
    assert stored is not None
    context = replace(context_of(None), epoch_height=2, epoch_id=epochs.layout(2).epoch_id, shards=(), shard_layout=SINGLE_SHARD)
    other.finish(context, [], [0])
    assert epochs.manifest(2).web_seeds
    assert epochs.manifest(2).deltas == listed


def test_an_epoch_that_is_not_published_gets_no_deltas() -> None:
    """The maker says so; a producer's ladder tells it and goes on."""
    epochs = DeltaEpochs()
    epochs.publish(1, PAIRS)
    with pytest.raises(EpochNotReadyError):
        epochs.make_delta(1, 2)
    context = replace(context_of(None), epoch_height=2, epoch_id=CryptoHash(b"\2" * 32))
    assert not DeltaLadder(2, epochs.work_url, "auto").make(epochs.runner, epochs.publisher, context)
    assert "not all of its deltas" in epochs.told.notes[-1]


def test_a_way_that_fails_leaves_the_shard_out_and_says_so() -> None:
    """A part of the base is gone."""
    epochs = DeltaEpochs()
    for height in (1, 2):
        epochs.publish(height, PAIRS[height:])
    lost = epochs.layout(1).folder
    store = open_store(epochs.store_url)
    for info in [one for one in store.list(lost) if "state_part" in one.name]:
        store.delete(info.name)
    ladder = DeltaLadder(2, f"memory://{uuid.uuid4().hex}", "auto")
    context = replace(context_of(None), epoch_height=2, epoch_id=epochs.layout(2).epoch_id)
    assert not ladder.make(epochs.runner, epochs.publisher, context)
    assert "no delta of shard s0.v0 from epoch 1" in epochs.told.notes[-1]
    assert lost in epochs.told.notes[-1]


def test_a_child_takes_its_own_accounts_of_its_parents_records() -> None:
    """By the layout's boundaries; what has no account id is taken whole, and so is all where the layout does not tell."""
    layout = ShardLayout("V2", 3, (0, 6, 7), ("kkuuue", "near"))
    middle, last = child_ranges(layout, 6), child_ranges(layout, 7)

    def taken(ranges: tuple[object, ...], key: bytes) -> bool:
        return any(one.begin <= key and (one.end is None or key < one.end) for one in ranges)  # type: ignore[attr-defined]

    for account in ("a", "kkuuue", "kkuuue.near", "m-m", "near", "near-x", "zz"):
        inside = layout.shard_ids[layout.shard_index_of(account)]
        for key in (account_key(account), contract_data_key(account, b"key")):
            assert taken(middle, key) == (inside == 6), account
            assert taken(last, key) == (inside == 7), account
    assert taken(middle, delayed_receipt_indices_key())
    assert taken(middle, b"")
    assert child_ranges(None, 6) == child_ranges(SINGLE_SHARD, 0) == child_ranges(layout, 9) == WHOLE_BASE


def test_datasets_and_parts_give_the_same_delta() -> None:
    """Objects and statement: whichever way the changes were found."""
    from pipelines.dataset.export.export_epoch import export_epoch
    from pipelines.dataset.export.export_records import ExportSettings
    from tests.support.list_source import list_source

    epochs, again = DeltaEpochs(), DeltaEpochs()
    datasets = []
    for height in (1, 2):
        pairs = [(key, value[:: height + 1] if key[-6] == 55 else value) for key, value in PAIRS[height:]]
        for mine in (epochs, again):
            manifest = mine.publish(height, pairs)
        context = replace(context_of(manifest.shards[0].state_root), epoch_height=height, epoch_id=manifest.epoch_id)
        settings = ExportSettings(f"memory://{uuid.uuid4().hex}", file_bytes_target=20_000, range_bytes_target=1 << 30)
        datasets += export_epoch(again.runner, list_source(pairs, (40, 80)), context, settings)
    assert len(datasets[0].summary.files) > 2
    one, other = epochs.make_delta(1, 2), again.make_delta(1, 2, DeltaInputs(tuple(datasets)))
    assert one.statement == other.statement
    assert one.statement.objects


def test_a_shard_that_was_split_is_rebuilt_of_its_parent() -> None:
    """Each child takes its accounts of the parent's state, and no row says that the others are gone."""
    epochs = DeltaEpochs()
    before = ShardLayout("V2", 3, (4,))
    after = ShardLayout("V2", 3, (6, 7), ("account060.near",))
    indices = delayed_receipt_indices_key()
    parent = [*PAIRS, (indices, bytes(16)), (contract_data_key("account070.near", b"k"), b"v" * 5000)]
    children = {
        6: sorted([*PAIRS[:60], (indices, bytes(16)), (account_key("a.new"), b"new")]),
        7: sorted([*PAIRS[60:-1], (contract_data_key("account070.near", b"k"), b"v" * 5000)]),
    }
    base = epochs.publish_shards(1, before, {4: sorted(parent)})
    target = epochs.publish_shards(2, after, children, parent=ShardUId(3, 4))
    production = DeltaProduction(epochs.runner, epochs.publisher, DeltaInputs(), "auto", epochs.work_url)
    production.run(epochs.layout(2), [epochs.layout(1)])
    store = open_store(epochs.store_url)
    counts = {}
    for listed in epochs.manifest(2).deltas:
        statement, _ = read_delta_statement(store, epochs.layout(2), listed)
        assert statement.base.shard_uid == ShardUId(3, 4)
        assert statement.base_ranges != WHOLE_BASE
        counts[listed.shard_id] = (statement.records, statement.deleted)
    # One account is new and one is gone; the second child has no queue of delayed receipts.
    assert counts == {6: (1, 0), 7: (2, 2)}
    into = f"memory://{uuid.uuid4().hex}"
    rebuild = PublishedRebuild(epochs.runner, choose_kernel(), epochs.store_url, f"memory://{uuid.uuid4().hex}", into)
    for shard_id in (6, 7):
        rebuild.run([base, epochs.manifest(2)], shard_id)
    published = [info.name for info in store.list(epochs.layout(2).folder) if "state_part" in info.name]
    assert len(published) == 6
    assert all(open_store(into).get(name, 0, 1 << 30) == store.get(name, 0, 1 << 30) for name in published)
    assert target.shards[0].parent_shard_uid == ShardUId(3, 4)


def test_a_shard_without_an_earlier_one_is_left_out_and_said_so() -> None:
    """The earlier epoch has neither it nor its parent."""
    epochs = DeltaEpochs()
    epochs.publish_shards(1, ShardLayout("V2", 3, (4,)), {4: PAIRS})
    epochs.publish_shards(2, ShardLayout("V2", 3, (5,)), {5: PAIRS})
    production = DeltaProduction(epochs.runner, epochs.publisher, DeltaInputs(), "auto", epochs.work_url)
    assert not production.run(epochs.layout(2), [epochs.layout(1)])
    assert "neither the shard nor the one that it was split from" in epochs.told.notes[-1]


def test_a_rung_is_made_of_deltas_where_no_tries_tell() -> None:
    """Of the one before's delta from the rung and the one that was just made: no whole part is read, and the parts come back all the same."""
    epochs = DeltaEpochs()
    states = [dict(PAIRS), {**dict(PAIRS[:-3]), b"\x00new.near": b"1"}, {**dict(PAIRS), PAIRS[5][0]: b"other"}]
    for height, state in zip((2, 3, 4), states, strict=True):
        epochs.publish(height, sorted(state.items()))
    epochs.make_delta(2, 3)
    store = open_store(epochs.store_url)
    kept = {info.name: store.get(info.name, 0, 1 << 20) for info in store.list(epochs.layout(2).folder) if "state_part" in info.name}
    for name in kept:
        store.delete(name)
    context = replace(context_of(None), epoch_height=4, epoch_id=epochs.layout(4).epoch_id)
    made = DeltaLadder(2, epochs.work_url, "auto").make(epochs.runner, epochs.publisher, context)
    assert [one.base_epoch_height for one in made] == [2, 3]
    assert epochs.manifest(4).revision == 2
    assert "compose" in {step.stage for step in epochs.told.stages}
    rung = epochs.delta(2, 4).statement
    # The new account came and went, and three went and came back: rows that change nothing.
    assert (rung.records, rung.deleted) == (5, 1)
    for name, content in kept.items():
        store.put(name, content)
    rebuild = epochs.rebuild(2, [epochs.delta(2, 4)], 4)
    rebuild.run()
    assert epochs.parts(4, rebuild.into_url) == epochs.parts(4)


@dataclass(frozen=True, slots=True)
class BackwardsExecutor:
    """Runs tasks last first, each as another process would get it."""

    description: str = "backwards"

    def run(self, tasks: Iterable[Task[R]], needs: TaskNeeds) -> Iterator[tuple[int, R]]:
        """See `Executor.run`."""
        for index, task in reversed(list(enumerate(tasks))):
            yield index, pickle.loads(pickle.dumps(task)).run()

    def close(self) -> None:
        """Do nothing."""


def test_objects_do_not_depend_on_who_works_on_what(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tasks, in another order, in other processes: the same delta; and parts are rebuilt so too."""
    epochs, again = DeltaEpochs(), DeltaEpochs()
    for height in (1, 2):
        for mine in (epochs, again):
            mine.publish(height, PAIRS[height * 3 :], 7)
    first = epochs.make_delta(1, 2)
    monkeypatch.setattr(find_delta, "PIECES_PER_TASK", 2)
    monkeypatch.setattr(rebuild_shard, "PARTS_PER_TASK", 2)
    runner = StageRunner(BackwardsExecutor(), again.told)
    DeltaProduction(runner, again.publisher, DeltaInputs(), "auto", again.work_url).run(again.layout(2), [again.layout(1)])
    assert again.delta(1, 2).statement == first.statement
    rebuild = again.rebuild(1, [again.delta(1, 2)], 2)
    rebuild.runner = runner
    rebuild.run()
    assert again.parts(2, rebuild.into_url) == epochs.parts(2)


def test_what_a_ladder_saves_is_added_up() -> None:
    """Kept: deltas of all, parts of rungs, of what no delta leads to, and of the newest. Moved: the first whole, then the smaller of both."""
    found = [(8, 100, 0, None), (9, 100, 5, 5), (10, 110, 11, 6), (11, 100, 0, None), (12, 120, 20, 130), (16, 100, 3, 3)]
    savings = LadderSavings(8, tuple(EpochBytes(*one) for one in found))
    assert savings.kept_whole() == [100, 200, 310, 410, 530, 630]
    assert savings.kept_by_ladder() == [100, 205, 226, 216, 356, 339]
    assert savings.moved_by_deltas() == [100, 105, 111, 211, 331, 334]


def changed_pairs() -> Pairs:
    """Return the records with some of them changed."""
    return [(key, value if number % 9 else value[::-1] + b"changed") for number, (key, value) in enumerate(PAIRS)]


class Killed(BaseException):
    """Nothing cleans up after this."""


def test_deltas_that_are_killed_at_any_write_are_finished_by_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest lists nothing that is not there, and in the end the objects are those of a run that nobody killed."""
    published = DeltaEpochs()
    for height, pairs in ((1, PAIRS), (2, changed_pairs())):
        published.publish(height, pairs)
    undisturbed = DeltaEpochs()
    for height, pairs in ((1, PAIRS), (2, changed_pairs())):
        undisturbed.publish(height, pairs)
    wanted = undisturbed.make_delta(1, 2).statement
    kills = 0
    while True:
        left = [kills // 2]

        def kill(method: str, name: str, _number: int, left: list[int] = left) -> None:
            if method in ("put", "swap"):
                left[0] -= 1
                if left[0] < 0:
                    raise Killed

        with monkeypatch.context() as patch:
            for url in (published.store_url, published.work_url):
                inject(patch, url, kill)
            try:
                published.make_delta(1, 2)
                break
            except Killed:
                kills += 1
        manifest, store = published.manifest(2), open_store(published.store_url)
        for listed in manifest.deltas:
            statement, _ = read_delta_statement(store, manifest.layout, listed)
            assert all(store.info(f"{manifest.layout.folder}/{statement.object_name(index)}") for index in range(listed.objects))
        assert kills < 40
    assert kills >= 4
    assert published.delta(1, 2).statement == wanted
