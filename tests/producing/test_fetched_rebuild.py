"""A fetch that rebuilds: part by part, with whole parts for those that can't be."""

from __future__ import annotations

import shutil
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.fetching.fetch_epoch import EpochFetch
from pipelines.fetching.fetch_result import FetchResult
from pipelines.fetching.fetch_settings import FetchSettings
from pipelines.kernel.choice import choose_kernel
from pipelines.producing.rebuild.fetched_rebuild import BaseRebuilder
from pipelines.stores.open_store import open_store
from pipelines.trust.policy import TrustPolicy
from pipelines.trust.signatures import TrustRule
from schemas.ids import PartId
from schemas.published.public_key import PublicKey
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


def fetch(bucket: Path, base: Path | str, into: Path, recorder: Recorder) -> FetchResult:
    """Fetch the second epoch."""
    epochs = DeltaEpochs()
    settings = FetchSettings(
        url=str(bucket),
        source_urls=(),
        chain_id="test",
        epoch="2",
        shard_ids=(),
        into=into,
        policy=TrustPolicy(TrustRule((PublicKey.parse(public_key()),)), None),
        limits=QUICK,
        kernel_name="auto",
        verify_workers=1,
        verify_in_threads=True,
        hold_lease=False,
    )
    rebuilder = BaseRebuilder(str(base), replace(epochs.runner, progress=epochs.told), choose_kernel())
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
