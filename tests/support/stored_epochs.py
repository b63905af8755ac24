"""Small published epochs of one chain in any store, made quickly: one shard each, built once."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import lru_cache

from pipelines.execution.build_shard import BuiltShard
from pipelines.publishing.epoch_publisher import EpochPublisher, PublishedEpoch
from pipelines.publishing.publish_part import PublishedPart
from pipelines.publishing.shard_publisher import ProducedShard
from schemas.epoch_context import EpochContext
from schemas.ids import CryptoHash, ShardUId
from schemas.object_layout import EpochLayout
from schemas.state_part import Encoding
from tests.support.productions import PIECE_LENGTH, context, publish_tasks, signer, small_shard


@lru_cache
def _built() -> BuiltShard:
    return small_shard()


def epoch_context(epoch_height: int) -> EpochContext:
    """Return the context of the small shard's epoch at a height, with an id of its own."""
    epoch_id = CryptoHash(hashlib.sha256(f"epoch {epoch_height}".encode()).digest())
    return replace(context(_built()), epoch_height=epoch_height, epoch_id=epoch_id)


def epoch_layout(epoch_height: int) -> EpochLayout:
    """Return the names of `epoch_context`'s objects."""
    return EpochLayout.of(epoch_context(epoch_height))


CHAIN_ID = context(_built()).chain_id


def publish_epoch(store_url: str, epoch_height: int, *, complete: bool = True, key: str = "first") -> PublishedEpoch:
    """Publish the small shard as the epoch of a height; an incomplete epoch has one more shard that nobody made."""
    built, of_epoch = _built(), epoch_context(epoch_height)
    layout = EpochLayout.of(of_epoch)
    parts: list[PublishedPart] = [
        replace(task, object_name=layout.state_part(0, task.plan.part_id)).run() for task in publish_tasks(built, store_url)
    ]
    publisher = EpochPublisher(store_url, signer(key), Encoding.V1, 1)
    produced = ProducedShard(ShardUId(0, 0), built.state_root, built.memory_usage, built.root_node, tuple(parts), PIECE_LENGTH, None)
    return publisher.finish(of_epoch, [publisher.put_shard(of_epoch, produced)], [0] if complete else [0, 1])
