"""What a seeder would bring of an epoch, and how: nothing is written."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.seeding.epoch_feed import EpochToSeed
from pipelines.seeding.rebuilt_parts import PartBringing, PlannedBringing
from pipelines.seeding.shard_parts import ShardFiles
from pipelines.seeding.status import ShardKey


@dataclass(frozen=True, slots=True)
class ShardToSeed:
    """One shard of an epoch that is brought here, as planned."""

    key: ShardKey
    parts: int
    bringing: PlannedBringing

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        way = self.bringing.way
        return {
            "epoch_height": self.key.epoch_height,
            "epoch_id": str(self.key.layout.epoch_id),
            "shard_id": self.key.shard_id,
            "parts": self.parts,
            "parts_here": self.parts - len(self.bringing.missing),
            "bytes_whole": self.bringing.whole_size,
            "bytes": self.bringing.size,
            "rebuilt_from": None if way is None else {"base": way.base, "steps": [asdict(step) for step in way.steps], "bytes": way.size},
        }


def plan_epoch(bringing: PartBringing, epoch: EpochToSeed, shard_ids: Sequence[int], local: Path | None = None) -> list[ShardToSeed]:
    """Return what would be brought of an epoch's shards; what is here is read, to see whether it is right.

    Args:
        shard_ids: empty for all.
        local: as in `SeedSettings`.
    """
    planned = []
    for shard in epoch.manifest.shards:
        if not shard.num_parts or (shard_ids and shard.shard_id not in shard_ids):
            continue
        key = ShardKey(epoch.layout, shard.shard_id)
        missing = ShardFiles(key, shard, bringing.data, local, threading.Event()).missing()
        planned.append(ShardToSeed(key, len(shard.parts), bringing.plan(epoch.manifest, shard, missing, keep=False)))
    return planned
