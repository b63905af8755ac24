"""What a backfill would do: by which way each shard of each epoch would be had, and about how much that is.

Reads root nodes and what is published; no shard. Times are rough: they are for telling hours from days.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.near.trie.trie_walk_source import StateWalkSource
from pipelines.producing.backfill.backfill_epochs import WantedEpoch
from pipelines.producing.backfill.backfill_node import Backfill, find_exported
from pipelines.producing.backfill.backfill_status import RecordsWay
from pipelines.producing.build.plan_parts import decide_num_parts
from schemas.errors import StatecastError
from schemas.ids import ShardUId
from schemas.nearcore.epoch_context import EpochContext, ShardContext

PRODUCE_BYTES_PER_S = 40e6
"""Memory usage that one core builds, encodes, publishes and validates in a second, about."""

READ_BYTES_PER_S = {RecordsWay.FLAT_STATE: 100e6, RecordsWay.STATE_WALK: 8e6}
"""Memory usage that one core exports in a second, about; the other ways read no whole shard."""

OBJECTS_PER_EPOCH = 2
"""Manifest, and its revision."""

OBJECTS_PER_SHARD = 2
"""Statement and torrent; a header where there is one."""


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """What would be done for one shard of one epoch."""

    epoch_height: int
    shard: str
    way: RecordsWay | None
    """None where it can't be done."""
    memory_usage: int | None
    """None where the node can't tell before reading."""
    num_parts: int | None
    problem: str = ""
    readings: int = 1
    """How often the records are read; twice where no dataset is written."""

    @property
    def objects(self) -> int:
        """Objects that would be written for the shard."""
        return 0 if self.way in (None, RecordsWay.PUBLISHED) else (self.num_parts or 0) + OBJECTS_PER_SHARD

    @property
    def size(self) -> int:
        """Bytes that would be written, about: a part's decoded bytes are near its memory usage."""
        return 0 if self.way in (None, RecordsWay.PUBLISHED) else self.memory_usage or 0

    @property
    def core_seconds(self) -> float:
        """Seconds of one core, about."""
        if self.way is None:
            return 0.0
        reading = READ_BYTES_PER_S.get(self.way)
        return self.size / PRODUCE_BYTES_PER_S + (self.size * self.readings / reading if reading else 0.0)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "epoch_height": self.epoch_height,
            "shard": self.shard,
            "way": None if self.way is None else str(self.way),
            "memory_usage": self.memory_usage,
            "num_parts": self.num_parts,
            "objects": self.objects,
            "bytes": self.size,
            "core_seconds": round(self.core_seconds, 3),
            **({"problem": self.problem} if self.problem else {}),
        }


def plan_backfill(backfill: Backfill) -> list[PlannedStep]:
    """Return the steps, by epoch and shard.

    Raises:
        StoreError, ManifestError: what is published can't be looked up.
    """
    steps: list[PlannedStep] = []
    for lane in backfill.lanes():
        older = [one for one in backfill.older if one.summary.context.epoch_height < lane[0].epoch_height]
        base = {one.summary.shard.shard_uid for one in older}
        for epoch in lane:
            planned, base = _epoch_steps(backfill, epoch, base)
            steps += planned
    return steps


def _epoch_steps(backfill: Backfill, epoch: WantedEpoch, base: set[ShardUId]) -> tuple[list[PlannedStep], set[ShardUId]]:
    context = epoch.context
    if context is None:
        return [PlannedStep(epoch.epoch_height, "-", None, None, None, str(epoch.failure))], base
    published = backfill.publisher_for(context).whole_manifest(context, backfill.settings.num_parts) is not None
    steps = [_shard_step(backfill, context, shard, published, shard.shard_uid in base) for shard in context.shards]
    there = {
        shard.shard_uid
        for shard, step in zip(context.shards, steps, strict=True)
        if step.way not in (None, RecordsWay.PUBLISHED) or find_exported(backfill.settings.export.dataset_url, context, shard) is not None
    }
    return steps, there or base


def _shard_step(backfill: Backfill, context: EpochContext, shard: ShardContext, published: bool, has_older: bool) -> PlannedStep:
    way: RecordsWay | None = None
    problem, memory_usage = "", None
    try:
        source = backfill.node.source(context.only((shard.shard_id,)))
        memory_usage = source.root_memory_usage(shard)
        if published:
            way = RecordsWay.PUBLISHED
        elif backfill.settings.write_dataset and find_exported(backfill.settings.export.dataset_url, context, shard) is not None:
            way = RecordsWay.DATASET
        elif has_older and backfill.node.roll_forward:
            way = RecordsWay.ROLL_FORWARD
        elif isinstance(source, StateWalkSource):
            way = RecordsWay.STATE_WALK
        else:
            # Says what is wrong where there is no flat state of the wanted block either.
            source.fingerprint(shard)
            way = RecordsWay.FLAT_STATE
    except StatecastError as error:
        problem = str(error)
    num_parts = None if memory_usage is None else decide_num_parts(memory_usage, backfill.settings.num_parts)
    readings = 1 if backfill.settings.write_dataset else 2
    return PlannedStep(context.epoch_height, str(shard.shard_uid), way, memory_usage, num_parts, problem, readings)
