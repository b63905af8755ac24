"""The state headers that neard's own dumper wrote for the real node, with the epochs that they are of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pipelines.near.epoch.node_context import epoch_context_from_node
from schemas.ids import CryptoHash, ShardUId
from schemas.nearcore.epoch_context import EpochContext
from tests.support.nodes import localnet, localnet_home

EPOCH_HEIGHTS = (4, 5, 6)
CACHED_EPOCH_HEIGHT = 6
"""The only epoch whose headers the node still has in StateHeaders."""

SHARD_IDS = (0, 1, 2, 3)


@dataclass(frozen=True, slots=True)
class DumpedHeader:
    """One header of the dump."""

    context: EpochContext
    shard_uid: ShardUId
    data: bytes

    @property
    def sync_hash(self) -> CryptoHash:
        """The sync block of its epoch."""
        return self.context.sync_hash


@lru_cache
def dumped_header(epoch_height: int, shard_id: int) -> DumpedHeader:
    """Return what neard dumped for a shard of an epoch."""
    context = epoch_context_from_node(localnet_home(), str(epoch_height))
    (path,) = (localnet() / "dump").glob(f"*/epoch_height={epoch_height}/*/headers/shard_id={shard_id}/header")
    return DumpedHeader(context, context.shard(shard_id).shard_uid, path.read_bytes())
