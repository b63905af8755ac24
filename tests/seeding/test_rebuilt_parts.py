"""A seeder that has an older epoch takes what changed since, where that is fewer bytes; what can't be rebuilt comes whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from pipelines.keeping.stored_ladder import part_sizes
from pipelines.kernel.choice import choose_kernel
from pipelines.mirroring.destination_rebuilder import DestinationRebuilder
from pipelines.producing.rebuild.fetched_rebuild import BaseRebuilder
from pipelines.producing.rebuild.rebuild_shard import ShardRebuild
from pipelines.seeding.data_folder import DataFolder, open_data_folder
from pipelines.seeding.epoch_feed import EpochFeed
from pipelines.seeding.rebuilt_parts import PartBringing
from pipelines.seeding.seed_plan import ShardToSeed, plan_epoch
from pipelines.seeding.seeder import Seeder, SeedSettings
from pipelines.seeding.shard_parts import ShardFiles
from pipelines.seeding.status import SeedEvent
from pipelines.stores.open_store import open_store
from pipelines.trust.freshness import AcceptedManifests
from pipelines.trust.policy import TrustPolicy
from tests.support.delta_epochs import DeltaEpochs
from tests.support.faulty_store import Fault
from tests.support.productions import inject
from tests.support.records import Pairs
from tests.support.stored_epochs import CHAIN_ID

ANYBODY = TrustPolicy(None, None, True)
NUM_PARTS = 3


def pairs_of(epoch_height: int) -> Pairs:
    """Return records of which every epoch changes one."""
    random = Random(7)
    pairs = [(b"\x00" + f"account{number:03d}.near".encode(), random.randbytes(3000)) for number in range(60)]
    for changed in range(2, epoch_height + 1):
        pairs[changed * 10] = (pairs[changed * 10][0], Random(changed).randbytes(3000))
    return pairs


@dataclass(slots=True)
class Seeded:
    """A bucket, and a seeder's folder that has its first epoch."""

    epochs: DeltaEpochs
    data: Path
    patch: pytest.MonkeyPatch
    wanted: dict[int, dict[str, bytes]] = field(default_factory=dict)
    """The parts as they were published, by height."""
    events: list[SeedEvent] = field(default_factory=list)
    read: set[str] = field(default_factory=set)

    def seed(self, *, rebuild: bool = True) -> int:
        """Let a seeder look once; return the bytes that it says it has brought."""
        rebuilder = DestinationRebuilder(str(self.data), self.epochs.runner, choose_kernel("auto"), ANYBODY) if rebuild else None
        settings = SeedSettings(CHAIN_ID, 2, ANYBODY, None, rebuilder=rebuilder)

        def count(method: str, name: str, _number: int) -> Fault | None:
            if method == "get":
                self.read.add(name)
            return None

        with open_data_folder(self.data) as folder, self.patch.context() as patch:
            inject(patch, self.epochs.store_url, count)
            status = Seeder(open_store(self.epochs.store_url), folder, settings, self.events.append).run(lambda _: None, once=True)
        assert status.is_complete
        for shard in status.shards:
            height = shard.key.epoch_height
            assert self.epochs.parts(height, str(self.data)) == self.wanted[height]
        return sum(shard.bytes_downloaded for shard in status.shards)

    def parts_read(self, height: int) -> int:
        """Return how many parts of an epoch were read from the bucket."""
        return len(self.read & {name for name, _ in part_sizes(self.epochs.manifest(height))})

    def plan(self) -> Sequence[ShardToSeed]:
        """Return what would be brought of the newest epoch."""
        store, folder = open_store(self.epochs.store_url), DataFolder(self.data)
        rebuilder = DestinationRebuilder(str(self.data), self.epochs.runner, choose_kernel("auto"), ANYBODY)
        (epoch, *_) = EpochFeed(store, CHAIN_ID, 1, ANYBODY, AcceptedManifests(CHAIN_ID)).look().epochs
        return plan_epoch(PartBringing(store, folder, rebuilder, lambda _: None), epoch, ())


@pytest.fixture
def seeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Seeded:
    """Epochs 1 and 2 with a delta between, of which the seeder has the first."""
    epochs = DeltaEpochs()
    epochs.publish(1, pairs_of(1), NUM_PARTS)
    made = Seeded(epochs, tmp_path / "data", monkeypatch)
    made.wanted[1] = epochs.parts(1)
    made.seed()
    epochs.publish(2, pairs_of(2), NUM_PARTS)
    made.wanted[2] = epochs.parts(2)
    epochs.make_delta(1, 2)
    made.read.clear()
    made.events.clear()
    return made


def told(seeded: Seeded) -> list[str]:
    """Return the kinds of what was told of shards."""
    return [event.kind for event in seeded.events if "rebuil" in event.kind]


def test_a_later_epoch_comes_by_its_delta(seeded: Seeded) -> None:
    """No part leaves the bucket, and a plan says so before; the folder has nothing else then."""
    (planned,) = seeded.plan()
    assert planned.bringing.way is not None and len(planned.bringing.missing) == NUM_PARTS
    delta = seeded.epochs.delta(1, 2).statement.size
    assert planned.bringing.size == delta < planned.bringing.whole_size / 4
    assert seeded.seed() == delta
    assert seeded.parts_read(2) == 0
    assert told(seeded) == ["shard_rebuilt"]
    assert not list((seeded.data / ".seed" / "tmp").iterdir())
    assert [len(one.bringing.missing) for one in seeded.plan()] == [0]


def test_whole_parts_come_where_that_was_asked_for(seeded: Seeded) -> None:
    """Or where the epoch has no deltas."""
    seeded.seed(rebuild=False)
    assert seeded.parts_read(2) == NUM_PARTS
    assert told(seeded) == []


@pytest.mark.parametrize("damage", ["an object is gone", "an object has other bytes", "the statement is gone", "a part of the base is cut"])
def test_what_can_not_be_rebuilt_comes_whole(damage: str, seeded: Seeded) -> None:
    """Part by part where it is known which ones; nothing ever has a wrong byte."""
    epochs, store = seeded.epochs, open_store(seeded.epochs.store_url)
    name = epochs.delta(1, 2).object_name(0)
    if damage.startswith("a part"):
        path = seeded.data / next(iter(seeded.wanted[1]))
        path.write_bytes(path.read_bytes()[:-1])
    elif damage.endswith("bytes"):
        data = store.get(name, 0, 1 << 20)
        store.put(name, data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    else:
        store.delete(name if "object" in damage else epochs.layout(2).delta_statement(epochs.layout(1).epoch_id, 0))
    seeded.seed()
    if damage.startswith("a part"):
        assert (seeded.parts_read(1), seeded.parts_read(2)) == (1, 0), "the base is put right first"
    else:
        assert 0 < seeded.parts_read(2) <= NUM_PARTS
        assert (seeded.parts_read(2) == NUM_PARTS) == ("statement" in damage)


def test_an_epoch_that_the_bucket_keeps_as_deltas_is_seeded(seeded: Seeded) -> None:
    """Its parts are nowhere whole."""
    store = open_store(seeded.epochs.store_url)
    for name in seeded.wanted[2]:
        store.delete(name)
    seeded.seed()
    assert told(seeded) == ["shard_rebuilt"]


@pytest.mark.parametrize("killed_in", ["_bring", "build", "finish", "take"])
def test_a_seeder_that_is_killed_while_it_rebuilds_goes_on(killed_in: str, seeded: Seeded) -> None:
    """Nothing that is not right has a part's name, and the next start removes what lay beside."""
    place = {"_bring": BaseRebuilder, "build": ShardRebuild, "finish": ShardRebuild, "take": ShardFiles}[killed_in]
    with seeded.patch.context() as patch:
        patch.setattr(place, killed_in, _die)
        with pytest.raises(Killed):
            seeded.seed()
    there = seeded.epochs.parts(2, str(seeded.data))
    assert there.items() <= seeded.wanted[2].items()
    seeded.read.clear()
    seeded.seed()
    assert seeded.parts_read(2) == 0
    assert not list((seeded.data / ".seed" / "tmp").iterdir())


class Killed(BaseException):
    """Nothing cleans up after this."""


def _die(*_: object) -> None:
    raise Killed
