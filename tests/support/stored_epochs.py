"""Small published epochs of one chain in any store, made quickly: one shard each, built once, of parts longer than a piece."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import lru_cache
from random import Random
from typing import Final

from pipelines.producing.build_shard import BuiltShard
from pipelines.producing.publish.epoch_publisher import EpochPublisher, PublishedEpoch
from pipelines.producing.publish.shard_publisher import ProducedShard
from schemas.ids import CryptoHash
from schemas.nearcore.epoch_context import EpochContext
from schemas.nearcore.shard_layout import SINGLE_SHARD
from schemas.nearcore.state_part import Encoding
from schemas.published.object_layout import EpochLayout
from tests.support.list_source import context_of
from tests.support.productions import fitting_header, header_of, new_store_url, publish_tasks, signer, small_shard

NUM_PARTS: Final = 5

CHAIN_ID: Final = context_of(None).chain_id


@lru_cache
def _built() -> BuiltShard:
    random = Random(7)
    pairs = [(b"\x00" + f"account{number:03d}.near".encode(), random.randbytes(5000)) for number in range(100)]
    return small_shard(pairs, NUM_PARTS)


def epoch_context(epoch_height: int) -> EpochContext:
    """Return the context of the small shard's epoch at a height, with an id of its own."""
    epoch_id = CryptoHash(hashlib.sha256(f"epoch {epoch_height}".encode()).digest())
    return replace(context_of(_built().state_root), epoch_height=epoch_height, epoch_id=epoch_id)


def epoch_layout(epoch_height: int) -> EpochLayout:
    """Return the names of `epoch_context`'s objects."""
    return EpochLayout.of(epoch_context(epoch_height))


def publish_epoch(
    store_url: str, epoch_height: int, *, complete: bool = True, key: str | None = "first", web_seeds: tuple[str, ...] = ()
) -> PublishedEpoch:
    """Publish the small shard as the epoch of a height; an incomplete epoch has one more shard that was not made.

    It may be published as a complete one after that: the shard layout has no such shard.
    """
    built, of_epoch = _built(), epoch_context(epoch_height)
    if complete:
        of_epoch = replace(of_epoch, shard_layout=SINGLE_SHARD)
    parts = tuple(task.run() for task in publish_tasks(built, store_url, of_epoch=of_epoch))
    publisher = EpochPublisher(store_url, None if key is None else signer(key), Encoding.V1, 1, web_seeds)
    produced = ProducedShard(built.state, parts, header_of(fitting_header(built)))
    return publisher.finish(of_epoch, [publisher.put_shard(of_epoch, produced)], [0] if complete else [0, 1])


def store_with(*epoch_heights: int) -> str:
    """Return a store with some complete epochs."""
    url = new_store_url()
    for epoch_height in epoch_heights:
        publish_epoch(url, epoch_height)
    return url
