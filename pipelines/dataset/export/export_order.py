"""Decides which shards of an epoch are exported before the first part is published.

Normally all of them, so that the node's snapshot can be dropped soonest. Where parts are published before their shard's root, the largest
shard's parts come first and the other shards' exports after them: the first part is out as soon as one shard is exported, for some
more time that the snapshot is held (``docs/decisions/0007``).
"""

from __future__ import annotations

from pipelines.near.node.flat_state_source import FlatStateSource, TrieSource
from schemas.nearcore.epoch_context import EpochContext


def export_steps(source: FlatStateSource, context: EpochContext) -> tuple[EpochContext, ...]:
    """Split an epoch into what is exported, and then published, one after the other: the largest shard, then all others.

    One step alone where that gains nothing or can't be told: a single shard, no trie nodes, a shard of unknown size.

    Raises:
        SourceError, IntegrityError: a shard can't be read; that shows before anything of another one is published.
    """
    if len(context.shards) == 1 or not isinstance(source, TrieSource):
        return (context,)
    for shard in context.shards:
        source.fingerprint(shard)
    sizes = {shard.shard_id: source.root_memory_usage(shard) for shard in context.shards}
    known = {shard_id: size for shard_id, size in sizes.items() if size is not None}
    if len(known) < len(sizes):
        return (context,)
    largest = max(known, key=lambda shard_id: known[shard_id])
    return context.only((largest,)), context.only(tuple(shard_id for shard_id in known if shard_id != largest))
