"""A fetch that rebuilds: part by part, with whole parts for those that can't be."""

from __future__ import annotations

import json
import shutil
import uuid
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from pipelines.fetching.documents import DocumentReader
from pipelines.fetching.fetch_epoch import EpochFetch
from pipelines.fetching.fetch_part import parts_to_fetch
from pipelines.fetching.fetch_result import FetchResult
from pipelines.fetching.fetch_settings import FetchSettings
from pipelines.fetching.part_rebuilding import WantedShard
from pipelines.kernel.choice import choose_kernel
from pipelines.producing.rebuild.fetched_rebuild import BaseRebuilder
from pipelines.stores.open_store import open_store
from pipelines.trust.policy import TrustPolicy
from pipelines.trust.signatures import TrustRule
from schemas.ids import PartId
from schemas.published.dsse import Envelope, parse_envelope
from schemas.published.in_toto import PAYLOAD_TYPE
from schemas.published.public_key import PublicKey
from schemas.published.shard_statement import ShardStatement
from tests.producing.test_rebuild_shard import CHANGED, PAIRS
from tests.support.delta_epochs import DeltaEpochs
from tests.support.fetches import QUICK, Recorder
from tests.support.published import public_key


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """Return a folder with two epochs, of 3 and of 5 parts, and the delta between them."""
    epochs = DeltaEpochs()
    epochs.publish(1, PAIRS, 3)
    epochs.publish(2, CHANGED, 5)
    epochs.make_delta(1, 2)
    return _copy(epochs.store_url, tmp_path / "bucket")


@pytest.fixture
def base(bucket: Path, tmp_path: Path) -> Path:
    """Return a folder with the first epoch alone."""
    folder = _copy(str(bucket), tmp_path / "base")
    shutil.rmtree(folder / DeltaEpochs().layout(2).folder)
    return folder


def _copy(store_url: str, folder: Path) -> Path:
    source, target = open_store(store_url), open_store(str(folder))
    for info in source.list():
        target.put(info.name, source.get(info.name, 0, 1 << 30))
    return folder


PINNED = TrustPolicy(TrustRule((PublicKey.parse(public_key()),)), None)


def fetch(
    bucket: Path, base: Path | str, into: Path, recorder: Recorder, *more: Path, height: int = 2, policy: TrustPolicy = PINNED
) -> FetchResult:
    """Fetch an epoch."""
    epochs = DeltaEpochs()
    settings = FetchSettings(
        url=str(bucket),
        source_urls=tuple(map(str, more)),
        chain_id="test",
        epoch=str(height),
        shard_ids=(),
        into=into,
        policy=policy,
        limits=QUICK,
        kernel_name="auto",
        verify_workers=1,
        verify_in_threads=True,
        hold_lease=False,
    )
    rebuilder = BaseRebuilder(str(base), replace(epochs.runner, progress=epochs.told), choose_kernel(), settings.policy)
    return EpochFetch(replace(settings, rebuilder=rebuilder), recorder).run()


def parts(folder: Path) -> dict[str, bytes]:
    """Return the second epoch's parts by name."""
    return {path.name: path.read_bytes() for path in folder.glob("*/epoch_height=2/*/shard_id=0/*")}


def test_one_damaged_part_of_the_base_costs_those_that_need_it(bucket: Path, base: Path, tmp_path: Path) -> None:
    """The others are rebuilt: a part that can't be is fetched whole, and gives its neighbours what they need of it."""
    broken = base / DeltaEpochs().layout(1).state_part(0, PartId(2, 3))
    broken.write_bytes(broken.read_bytes()[:-1])
    recorder = Recorder()
    (shard,) = fetch(bucket, base, tmp_path / "into", recorder).shards
    assert parts(tmp_path / "into") == parts(bucket)
    assert shard.rebuilt
    assert shard.fetched
    assert len(shard.rebuilt) + len(shard.fetched) == 5
    assert len(recorder.named("part")) == len(shard.fetched)
    assert recorder.named("rebuilt")[0]["parts"] == len(shard.rebuilt)


def test_parts_that_are_here_stay_and_only_the_missing_are_made(bucket: Path, base: Path, tmp_path: Path) -> None:
    """Of an interrupted fetch some parts are in place; the others are rebuilt where that is still fewer bytes."""
    into = tmp_path / "into"
    (shard,) = fetch(bucket, base, into, Recorder()).shards
    assert len(shard.rebuilt) == 5
    lost = sorted(into.glob("*/epoch_height=2/*/shard_id=0/*"), key=lambda path: path.stat().st_size)[-1]
    lost.unlink()
    (again,) = fetch(bucket, base, into, Recorder()).shards
    assert [part.object_name.rpartition("/")[2] for part in again.missing] == [lost.name]
    assert parts(into) == parts(bucket)


def test_other_bytes_of_another_zstd_are_fetched_whole(bucket: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rebuilt parts are right, and not the published objects: what lies beside the publisher's manifest is what it says."""
    from pipelines.producing.rebuild import rebuild_part
    from schemas.nearcore.state_part import Encoding, encode_state_part

    def other_level(partial_state: bytes, encoding: Encoding, level: int) -> bytes:
        return encode_state_part(partial_state, encoding, level + 5)

    monkeypatch.setattr(rebuild_part, "encode_state_part", other_level)
    (shard,) = fetch(bucket, base, tmp_path / "into", Recorder()).shards
    assert len(shard.fetched) > 0
    assert parts(tmp_path / "into") == parts(bucket)


def test_a_base_on_this_machine_costs_nothing_and_one_elsewhere_its_bytes(bucket: Path, base: Path, tmp_path: Path) -> None:
    """To read parts of a distant bucket as a base is to move them."""
    recorder = Recorder()
    elsewhere = f"memory://{uuid.uuid4().hex}"
    for path in base.rglob("*"):
        if path.is_file() and ".statecast" not in str(path):
            open_store(elsewhere).put(str(path.relative_to(base)), path.read_bytes())
    (shard,) = fetch(bucket, elsewhere, tmp_path / "into", recorder).shards
    assert not shard.rebuilt
    assert any("no deltas of fewer bytes" in str(facts["text"]) for facts in recorder.named("note"))
    assert parts(tmp_path / "into") == parts(bucket)


@pytest.mark.parametrize("policy", [PINNED, TrustPolicy(insecure=True)], ids=["pinned", "nobody is pinned"])
@pytest.mark.parametrize("lie", ["no deltas", "a delta of a byte that nobody has", "nested arrays"])
def test_a_source_that_lies_of_an_epoch_between_ends_no_rebuilding(
    bucket: Path, base: Path, tmp_path: Path, lie: str, policy: TrustPolicy
) -> None:
    """It is asked first, and its manifest of the epoch between is its own: the way that another source knows is taken."""
    epochs = DeltaEpochs(str(bucket))
    epochs.publish(3, CHANGED[10:], 4)
    epochs.make_delta(2, 3)
    hostile = _copy(str(bucket), tmp_path / "hostile")
    shutil.rmtree(hostile / epochs.layout(3).shard_folder(0))
    manifest = epochs.manifest(2)
    wrong = tuple(replace(one, statement_sha256="ab" * 32, objects=1, size=1) for one in manifest.deltas if "nobody" in lie)
    payload = replace(manifest, deltas=wrong).to_payload()
    if lie == "nested arrays":
        payload = json.dumps({**json.loads(payload), "more": [[[]] * 99] * 99}).encode()
    (hostile / epochs.layout(2).manifest).write_bytes(Envelope(payload, PAYLOAD_TYPE).to_bytes())
    (shard,) = fetch(hostile, base, tmp_path / "into", Recorder(), bucket, height=3, policy=policy).shards
    assert len(shard.rebuilt) == 4 and not shard.fetched
    assert shard.way is not None and [step.epoch_height for step in shard.way.steps] == [2, 3]


def test_more_than_a_part_can_have_is_not_held(bucket: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody vouches for a delta before its shard is rebuilt: the parts within whose keys it says too much come whole."""
    monkeypatch.setattr("pipelines.dataset.delta.applied_records.CHANGES_BYTES_MAX", 5500)
    (shard,) = fetch(bucket, base, tmp_path / "into", Recorder()).shards
    assert 0 < len(shard.fetched) < 5
    assert parts(tmp_path / "into") == parts(bucket)


def test_a_catalogue_that_says_that_parts_are_gone_makes_nobody_pay_for_anything(bucket: Path, base: Path) -> None:
    """No key signs a catalogue, and where none is pinned none the deltas: what they may cost has a bound."""
    epochs = DeltaEpochs(str(bucket))
    manifest = epochs.manifest(2)
    data = (bucket / epochs.layout(2).shard_statement(0)).read_bytes()
    statement = ShardStatement.from_payload(parse_envelope(data, "test").payload, "test")
    missing = tuple(parts_to_fetch(manifest, manifest.shards[0], statement))
    rebuilder = BaseRebuilder(str(base), epochs.runner, choose_kernel(), PINNED)
    reader = DocumentReader([], {}, QUICK, Random(1))
    for size, is_taken in ((10 * sum(part.size for part in missing), True), (10**12, False)):
        dear = replace(manifest, deltas=tuple(replace(one, objects=100_000, size=size) for one in manifest.deltas))
        way, _ = rebuilder.find_way(WantedShard(dear, statement, missing, is_thin=True), reader)
        assert (way is not None) is is_taken
