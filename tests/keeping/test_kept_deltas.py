"""Deltas and what is kept as deltas: checked, scrubbed and made again, and never misled by the catalogue, which nobody signs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from pipelines.bucket.chain_catalogue import CatalogueWriter
from pipelines.keeping.check_epoch import WHOLE_EPOCH, CheckResult, EpochCheck
from pipelines.keeping.findings import FindingKind
from pipelines.keeping.repair_epoch import Repair
from pipelines.keeping.scrub_chain import ChainScrub, ScrubOutcome, ScrubSettings
from pipelines.keeping.scrub_sample import SampleWindow
from pipelines.keeping.stored_ladder import StoredLadder, thin_steps
from pipelines.kernel.choice import choose_kernel
from pipelines.producing.deltas.make_deltas import DeltaInputs, DeltaProduction, published_records
from pipelines.producing.deltas.shard_delta import ComparedRecords, ComposedDeltas, ShardDelta
from pipelines.producing.rebuild.delta_trial import PublishedTrial
from pipelines.producing.rebuild.rebuilt_epoch import EpochRebuild
from pipelines.producing.rebuild.remaker import PublishedRemaker
from pipelines.stores.open_store import open_store
from pipelines.trust.signatures import TrustRule
from schemas.ids import PartId, ShardUId
from schemas.nearcore.shard_layout import ShardLayout
from schemas.published.delta_statement import WHOLE_BASE, DeltaEnd
from schemas.published.manifest import Manifest
from schemas.published.object_layout import EpochLayout
from schemas.published.scrub_state import WHOLE_PPM
from tests.support.delta_epochs import DeltaEpochs
from tests.support.folder_server import folder_server
from tests.support.productions import signer
from tests.support.records import Pairs
from tests.support.stored_epochs import CHAIN_ID

HEIGHTS = (8, 9, 10)
NUM_PARTS = 3


def pairs_of(epoch_height: int) -> Pairs:
    """Return records of which every epoch changes one in the middle."""
    return [
        (b"\x00" + f"account{number:03d}.near".encode(), Random(100 * epoch_height if number == 15 else number).randbytes(300))
        for number in range(30)
    ]


def copied(source: DeltaEpochs) -> DeltaEpochs:
    """Copy all objects into a store of its own."""
    made = DeltaEpochs()
    here, there = open_store(source.store_url), open_store(made.store_url)
    for info in here.list():
        there.put(info.name, here.get(info.name, 0, info.size))
    return made


@pytest.fixture(scope="module")
def published() -> DeltaEpochs:
    """Epochs 8 to 10, a delta from each to the next, and one from 8 to 10. It must not be changed."""
    made = DeltaEpochs()
    for height in HEIGHTS:
        made.publish(height, pairs_of(height), NUM_PARTS)
    for base, target in ((8, 9), (9, 10), (8, 10)):
        made.make_delta(base, target)
    return made


@pytest.fixture
def epochs(published: DeltaEpochs) -> DeltaEpochs:
    """A copy to damage."""
    return copied(published)


def trust() -> TrustRule:
    """Trust whoever has published."""
    return TrustRule((signer().public_key,))


def check(epochs: DeltaEpochs, height: int, window: SampleWindow | None = None) -> CheckResult:
    """Check an epoch, deltas and all."""
    trial = PublishedTrial(epochs.runner, choose_kernel("auto"), epochs.store_url, epochs.store_url)
    return EpochCheck(
        epochs.runner, "auto", epochs.store_url, epochs.layout(height), (), trust(), window=window or WHOLE_EPOCH, trial=trial
    ).run()


def scrub(epochs: DeltaEpochs, height: int, scratch: Path | None = None, **changes: object) -> ScrubOutcome:
    """Scrub an epoch in full, and repair it where there is a folder for that."""
    options: dict[str, object] = {"sample_ppm": WHOLE_PPM, "trust": trust(), "repair": scratch is not None} | changes
    settings = ScrubSettings(epochs.store_url, (epochs.layout(height),), **options)  # type: ignore[arg-type]
    remaker = None if scratch is None else PublishedRemaker(epochs.runner, choose_kernel("auto"), epochs.store_url, scratch)
    (outcome,) = ChainScrub(epochs.runner, settings, remaker=remaker).run().epochs
    return outcome


def objects(epochs: DeltaEpochs) -> dict[str, bytes]:
    """Return all objects but the notes of scrubs."""
    store = open_store(epochs.store_url)
    return {info.name: store.get(info.name, 0, info.size) for info in store.list() if "scrub" not in info.name}


def flip(epochs: DeltaEpochs, name: str) -> None:
    """Change a bit of an object."""
    store = open_store(epochs.store_url)
    data = store.get(name, 0, 1 << 30)
    store.put(name, data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])


def cut(epochs: DeltaEpochs, name: str) -> None:
    """Take the last bytes of an object away."""
    store = open_store(epochs.store_url)
    store.put(name, store.get(name, 0, 1 << 30)[:-7])


def lose(epochs: DeltaEpochs, name: str) -> None:
    """Delete an object."""
    open_store(epochs.store_url).delete(name)


def swap(epochs: DeltaEpochs, name: str) -> None:
    """Put what lies at the same place of the other delta there."""
    eight, nine = (str(epochs.layout(height).epoch_id) for height in (8, 9))
    other = name.replace(nine, eight) if nine in name else name.replace(eight, nine)
    store = open_store(epochs.store_url)
    store.put(name, store.get(other, 0, 1 << 30))


def object_of(epochs: DeltaEpochs, base: int) -> str:
    """Return the name of the object of a delta to epoch 10."""
    return epochs.delta(base, 10).object_name(0)


def statement_of(epochs: DeltaEpochs, base: int) -> str:
    """Return the name of the statement of a delta to epoch 10."""
    return epochs.layout(10).delta_statement(epochs.layout(base).epoch_id, 0)


def part(epochs: DeltaEpochs, height: int, idx: int) -> str:
    """Return the name of a part."""
    return epochs.layout(height).state_part(0, PartId(idx, NUM_PARTS))


class TestCheck:
    """What a check says of deltas."""

    def test_right_ones_give_the_parts(self, epochs: DeltaEpochs) -> None:
        """Each is applied to its base, and compared with all parts."""
        result = check(epochs, 10)
        assert result.is_good and result.deltas is not None
        assert (result.deltas.listed, result.deltas.applied, result.deltas.objects_read) == (2, 2, 2)
        assert check(epochs, 8).deltas is None

    @pytest.mark.parametrize("named", [object_of, statement_of])
    @pytest.mark.parametrize("damage", [flip, cut, lose, swap])
    def test_every_damage_is_found_and_named(
        self, damage: Callable[[DeltaEpochs, str], None], named: Callable[[DeltaEpochs, int], str], epochs: DeltaEpochs
    ) -> None:
        """By a check and a scrub; and nothing else is said to be wrong."""
        name = named(epochs, 9)
        damage(epochs, name)
        kind = FindingKind.MISSING if damage is lose else FindingKind.WRONG
        result = check(epochs, 10)
        assert [(found.kind, found.object_name) for found in result.findings] == [(kind, name)]
        assert result.deltas is not None and result.deltas.applied == 1
        assert [(found.kind, found.object_name) for found in scrub(epochs, 10).scrubbed.findings] == [(kind, name)]

    @pytest.mark.parametrize("window", [None, SampleWindow(340_000), SampleWindow(1, 400_000)])
    def test_a_delta_that_lies_is_found_by_what_comes_of_it(self, epochs: DeltaEpochs, window: SampleWindow | None) -> None:
        """Its digests and signatures are right, its rows are another epoch's; a sample finds it in the parts that it reads."""
        _lie(epochs, 8, 9, 10)
        result = check(epochs, 9, window)
        wrong = [found.object_name for found in result.findings]
        if window is None:
            assert wrong == [epochs.layout(9).delta_statement(epochs.layout(8).epoch_id, 0)]
            assert "other records than part" in result.findings[0].problem
        else:
            (shard,) = result.shards
            has_changes = {idx for idx in shard.read_right if idx == 1}
            assert bool(wrong) == bool(has_changes)

    def test_what_the_base_is_not_there_for_is_told(self, epochs: DeltaEpochs) -> None:
        """An epoch that was collected is no fault of the delta."""
        for info in list(open_store(epochs.store_url).list(epochs.layout(9).folder)):
            open_store(epochs.store_url).delete(info.name)
        result = check(epochs, 10)
        assert result.is_good and result.deltas is not None
        assert result.deltas.applied == 1
        (why,) = result.deltas.untried
        assert "epoch 9" in why

    def test_a_base_that_is_kept_as_deltas_is_had_by_them(self, epochs: DeltaEpochs) -> None:
        """Two deltas are applied for the one."""
        for idx in range(NUM_PARTS):
            lose(epochs, part(epochs, 9, idx))
        result = check(epochs, 10)
        assert result.is_good and result.deltas is not None
        assert (result.deltas.applied, result.deltas.untried) == (2, ())

    def test_a_shard_that_was_split_is_compared_with_its_parent(self, tmp_path: Path) -> None:
        """Only the child's accounts are taken of it; a lost part of a child is rebuilt of the parent's."""
        epochs, pairs = DeltaEpochs(), sorted(pairs_of(8))
        epochs.publish_shards(1, ShardLayout("V2", 3, (4,)), {4: pairs}, NUM_PARTS)
        children = {6: pairs[:14], 7: sorted([*pairs[15:], (b"\x00new.near", b"new")])}
        after = ShardLayout("V2", 3, (6, 7), ("account015.near",))
        epochs.publish_shards(2, after, children, NUM_PARTS, parent=ShardUId(3, 4))
        production = DeltaProduction(epochs.runner, epochs.publisher, DeltaInputs(), "auto", epochs.work_url)
        production.run(epochs.layout(2), [epochs.layout(1)])
        before, result = objects(epochs), check(epochs, 2)
        assert result.is_good and result.deltas is not None
        assert (result.deltas.listed, result.deltas.applied) == (2, 2)
        lose(epochs, epochs.layout(2).state_part(7, PartId(1, NUM_PARTS)))
        lose(epochs, epochs.layout(2).delta(epochs.layout(1).epoch_id, 6, 0))
        assert scrub(epochs, 2, tmp_path).repaired == 2
        assert objects(epochs) == before


def _lie(epochs: DeltaEpochs, base: int, target: int, truly: int) -> None:
    """Publish a delta that says it leads to one epoch and leads to another."""
    store = open_store(epochs.store_url)
    known = [epochs.manifest(height) for height in (base, target, truly)]
    ends = [DeltaEnd(one.epoch_height, one.epoch_id, one.shards[0].shard_uid, one.shards[0].state_root) for one in known]
    older, newer = published_records(store, known[0], 0, "auto"), published_records(store, known[2], 0, "auto")
    assert older is not None and newer is not None
    delta = ShardDelta(CHAIN_ID, ends[0], ends[1], WHOLE_BASE, epochs.work_url, epochs.store_url)
    made = delta.publish(epochs.runner, ComparedRecords(older, newer), epochs.publisher.signers)
    epochs.publisher.list_deltas(epochs.layout(target), [made])


def test_an_epoch_that_is_kept_as_deltas_is_had_from_a_web_server(epochs: DeltaEpochs, tmp_path: Path) -> None:
    """Which can't be listed: the manifest knows what there is; it is checked as anywhere."""
    wanted = epochs.parts(9)
    for idx in range(NUM_PARTS):
        lose(epochs, part(epochs, 9, idx))
    _copy_to_folder(epochs, tmp_path / "bucket")
    with folder_server(tmp_path / "bucket") as url:
        steps = thin_steps(open_store(url), epochs.manifest(9))
        assert steps == (epochs.layout(8),)
        EpochRebuild(epochs.runner, choose_kernel("auto"), url).run(epochs.layout(9), steps, tmp_path / "into")
        trial = PublishedTrial(epochs.runner, choose_kernel("auto"), url, str(tmp_path / "into"))
        result = EpochCheck(epochs.runner, "auto", str(tmp_path / "into"), epochs.layout(9), (), trust(), trial=trial).run()
    assert result.is_good and result.deltas is not None and result.deltas.applied == 1
    assert epochs.parts(9, str(tmp_path / "into")) == wanted


class TestScrub:
    """What a scrub says of deltas."""

    def test_samples_cover_every_object_once(self, epochs: DeltaEpochs) -> None:
        """One after the other, as they do parts; a flipped bit shows in one of them."""
        flip(epochs, object_of(epochs, 8))
        outcomes = [scrub(epochs, 10, sample_ppm=500_000) for _ in range(2)]
        assert [outcome.scrubbed.delta_objects_read for outcome in outcomes] == [1, 1]
        assert sorted(len(outcome.scrubbed.findings) for outcome in outcomes) == [0, 1]

    def test_a_statement_that_nobody_trusted_has_signed_is_wrong(self, epochs: DeltaEpochs) -> None:
        """Though its payload is the one that the manifest names."""
        name = statement_of(epochs, 9)
        store = open_store(epochs.store_url)
        data = store.get(name, 0, 1 << 20)
        at = data.index(b'"sig":"') + 10
        store.put(name, data[:at] + (b"A" if data[at : at + 1] != b"A" else b"B") + data[at + 1 :])
        assert [found.object_name for found in scrub(epochs, 10).scrubbed.findings] == [name]


class TestRepair:
    """What a repair makes again of what the bucket has."""

    @pytest.mark.parametrize("lost", [(0,), (1,), (0, 1, 2)])
    def test_lost_parts_are_rebuilt(self, lost: tuple[int, ...], epochs: DeltaEpochs, tmp_path: Path) -> None:
        """Byte for byte, of an earlier epoch's parts and deltas; nothing else is touched."""
        before = objects(epochs)
        for idx in lost:
            (flip if idx == 1 else lose)(epochs, part(epochs, 10, idx))
        if len(lost) == NUM_PARTS:
            # Else none of its parts would be there, which is an epoch that is kept as deltas.
            open_store(epochs.store_url).put(part(epochs, 10, 0), b"rotten")
        outcome = scrub(epochs, 10, tmp_path)
        assert outcome.repaired == len(outcome.repairs) == len(lost)
        assert all("delta" in repair.source_id for repair in outcome.repairs)
        assert objects(epochs) == before

    def test_another_way_is_taken_where_one_is_damaged(self, epochs: DeltaEpochs, tmp_path: Path) -> None:
        """The delta from 8 is rotten: it goes by 9, and then the delta is made again."""
        before = objects(epochs)
        flip(epochs, object_of(epochs, 8))
        lose(epochs, part(epochs, 10, 1))
        outcome = scrub(epochs, 10, tmp_path)
        assert outcome.repaired == 2
        assert objects(epochs) == before

    def test_a_delta_that_lies_repairs_nothing(self, epochs: DeltaEpochs, tmp_path: Path) -> None:
        """The only way to the part is a lie: it stays lost, the reason is told, nothing was put."""
        _lie(epochs, 8, 9, 10)
        lose(epochs, part(epochs, 9, 1))
        before = objects(epochs)
        outcome = scrub(epochs, 9, tmp_path)
        assert outcome.repaired == 0
        assert "can't be made again" in outcome.repairs[0].problem
        assert objects(epochs) == before

    @pytest.mark.parametrize("damage", [flip, cut, lose, swap])
    def test_lost_deltas_are_made_again(self, damage: Callable[[DeltaEpochs, str], None], epochs: DeltaEpochs, tmp_path: Path) -> None:
        """Of the parts of both epochs."""
        before = objects(epochs)
        damage(epochs, object_of(epochs, 9))
        outcome = scrub(epochs, 10, tmp_path)
        assert outcome.repaired == 1
        assert objects(epochs) == before

    def test_a_composed_delta_is_composed_again(self, epochs: DeltaEpochs, tmp_path: Path) -> None:
        """It has rows that say what the base has already, which a comparison does not find."""
        epochs.publish(11, pairs_of(9), NUM_PARTS)
        epochs.make_delta(10, 11)
        steps = (epochs.delta(9, 10), epochs.delta(10, 11))
        first, last = steps[0].statement.base, steps[1].statement.target
        delta = ShardDelta(CHAIN_ID, first, last, WHOLE_BASE, epochs.work_url, epochs.store_url)
        epochs.publisher.list_deltas(epochs.layout(11), [delta.publish(epochs.runner, ComposedDeltas(steps), epochs.publisher.signers)])
        before = objects(epochs)
        lose(epochs, epochs.delta(9, 11).object_name(0))
        assert scrub(epochs, 11, tmp_path).repaired == 1
        assert objects(epochs) == before

    def test_a_lost_statement_comes_from_a_mirror_alone(self, epochs: DeltaEpochs, published: DeltaEpochs, tmp_path: Path) -> None:
        """Nothing is signed here."""
        before = objects(epochs)
        lose(epochs, statement_of(epochs, 9))
        (repair,) = scrub(epochs, 10, tmp_path).repairs
        assert isinstance(repair, Repair) and not repair.is_done
        _copy_to_folder(published, tmp_path / "mirror")
        assert scrub(epochs, 10, tmp_path, mirror_urls=(str(tmp_path / "mirror"),)).repaired == 1
        assert objects(epochs) == before


def _copy_to_folder(epochs: DeltaEpochs, folder: Path) -> None:
    store = open_store(str(folder))
    for name, data in objects(epochs).items():
        store.put(name, data)


def _claim(epochs: DeltaEpochs, height: int, *steps: EpochLayout) -> None:
    """Make the catalogue say that an epoch is kept as deltas."""
    writer = CatalogueWriter(open_store(epochs.store_url), CHAIN_ID)
    writer.change(lambda catalogue: catalogue.with_steps(epochs.layout(height), steps))


class TestLyingCatalogue:
    """Nobody signs ``rebuilt_from``."""

    def test_parts_that_are_there_are_checked_whatever_it_says(self, epochs: DeltaEpochs) -> None:
        """A rotten part is found, not a rebuilt one looked at in its place."""
        _claim(epochs, 10, epochs.layout(8))
        assert thin_steps(open_store(epochs.store_url), epochs.manifest(10)) == ()

    @pytest.mark.parametrize("lie", ["absent", "above", "a cycle", "itself", "no delta"])
    def test_parts_are_missed_where_no_way_leads_there(self, lie: str, epochs: DeltaEpochs) -> None:
        """Wrong rungs, absent rungs, cycles: what deltas say counts."""
        absent = EpochLayout(CHAIN_ID, 7, epochs.layout(8).epoch_id)
        steps = {
            "absent": (absent,),
            "above": (epochs.layout(10),),
            "a cycle": (epochs.layout(9), epochs.layout(8), epochs.layout(9)),
            "itself": (epochs.layout(8),),
            "no delta": (epochs.layout(9),),
        }[lie]
        _claim(epochs, 8, *steps)
        lose(epochs, part(epochs, 8, 1))
        found = scrub(epochs, 8).scrubbed
        assert [(one.kind, one.object_name) for one in found.findings] == [(FindingKind.MISSING, part(epochs, 8, 1))]
        assert found.steps == ()

    def test_the_way_is_the_one_that_is_there(self, epochs: DeltaEpochs) -> None:
        """It names a way that is not there, or none: deltas lead by another."""
        store = open_store(epochs.store_url)
        for idx in range(NUM_PARTS):
            lose(epochs, part(epochs, 10, idx))
        assert thin_steps(store, epochs.manifest(10)) == (epochs.layout(9),)
        _claim(epochs, 10, EpochLayout(CHAIN_ID, 7, epochs.layout(8).epoch_id), epochs.layout(8))
        lose(epochs, object_of(epochs, 9))
        assert thin_steps(store, epochs.manifest(10)) == (epochs.layout(8),)
        lose(epochs, statement_of(epochs, 8))
        assert thin_steps(store, epochs.manifest(10)) == ()

    def test_ten_thousand_rungs_end(self, epochs: DeltaEpochs, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each lists a delta from the one before, whose parts are not there either: so many manifests are not read."""
        read: list[EpochLayout] = []
        manifest = epochs.manifest(10)
        ladder = StoredLadder(open_store(epochs.store_url))
        monkeypatch.setattr("pipelines.keeping.stored_ladder.has_all_parts", lambda *_: False)
        monkeypatch.setattr("pipelines.keeping.stored_ladder.bases_there", lambda one, _: {_below(one.layout)})
        monkeypatch.setattr("pipelines.keeping.stored_ladder.sizes_in", lambda *_: {}.get)

        def stored(_store: object, layout: EpochLayout, _judge: object) -> object:
            read.append(layout)
            return _Stored(replace(manifest, epoch_height=layout.epoch_height, epoch_id=layout.epoch_id))

        monkeypatch.setattr("pipelines.keeping.stored_ladder.read_manifest", stored)
        assert ladder.steps_to(EpochLayout(CHAIN_ID, 10_000, manifest.epoch_id)) is None
        assert len(read) <= 256


class _Stored:
    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest


def _below(layout: EpochLayout) -> EpochLayout:
    return EpochLayout(layout.chain_id, layout.epoch_height - 1, layout.epoch_id)
