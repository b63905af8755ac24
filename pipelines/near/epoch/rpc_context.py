"""The epoch context out of a node's JSON-RPC.

The blocks of the epoch are walked from its first one to its sync block. Every header is turned back into nearcore's bytes and hashed, the
chunk headers of every block too, and the blocks must be a chain that begins at the epoch's border (`pipelines.near.epoch.sync_block`). So an
endpoint can't change a sync hash, a state root or an epoch id of a block that it shows; headers of versions that are not known here
are refused, since they can't be hashed.

What is the endpoint's word alone, and can only be compared with another source's:

- that these blocks are the chain: an endpoint that shows made-up blocks with consistent hashes is not detected here;
- the epoch's height, and which epoch has a height (``validators``);
- chain id, protocol version and shard layout, so the version in each shard uid, and parents (``EXPERIMENTAL_protocol_config``). The shard
  ids of the layout must be those of the block's chunks.

Source: nearcore chain/jsonrpc/src/lib.rs; chain/chain/src/state_sync/adapter.rs, ChainStateSyncAdapter::compute_state_response_header.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pipelines.near.epoch.context_agreement import compare_contexts, mismatch
from pipelines.near.epoch.epoch_context_source import LATEST
from pipelines.near.epoch.rpc_chain import ASK_ANOTHER, EMPTY_HEIGHTS_MAX, RpcChain
from pipelines.near.epoch.rpc_client import RpcClient
from pipelines.near.epoch.sync_block import find_sync_block
from schemas.errors import EpochNotReadyError, IntegrityError, SourceError
from schemas.ids import CryptoHash, ShardUId
from schemas.nearcore.epoch_context import EpochContext, ShardContext
from schemas.nearcore.rpc_block import RpcBlock
from schemas.nearcore.rpc_epoch import RpcEpoch, RpcProtocolConfig

EPOCHS_BACK_MAX: Final = 2000
"""Most epochs that are stepped back to find one by its height; a call each."""


@dataclass(frozen=True, slots=True)
class RpcContextSource:
    """An `EpochContextSource`: one JSON-RPC endpoint."""

    client: RpcClient
    empty_heights_max: int = EMPTY_HEIGHTS_MAX

    @property
    def source_id(self) -> str:
        """The endpoint without what may be secret."""
        return self.client.source_id

    @property
    def is_given(self) -> bool:
        """See `EpochContextSource.is_given`."""
        return False

    def epoch_context(self, selector: str = LATEST) -> EpochContext:
        """See `EpochContextSource.epoch_context`; ``latest`` is the newest epoch whose sync block is final.

        Raises:
            EpochNotReadyError: also when the endpoint no longer has the epoch's blocks, or the sync block is not final yet.
        """
        chain = RpcChain(self.client, self.empty_heights_max)
        head = chain.final_block()
        if selector != LATEST:
            return self._context(chain, head, self._selected(chain, head, selector))
        try:
            return self._context(chain, head, head.header.epoch_id)
        except _NotKnownYetError:
            return self._context(chain, head, self._epoch_before(chain, head))

    def check(self, context: EpochContext, source_id: str, *, of_given: bool = False) -> EpochContext | None:
        """See `EpochContextSource.check`; an endpoint that does not know the epoch still knows its chain."""
        chain = RpcChain(self.client, self.empty_heights_max)
        head = chain.final_block()
        config = chain.protocol_config(head)
        if config is not None and config.chain_id != context.chain_id:
            raise mismatch("chain_id", context.chain_id, source_id, config.chain_id, self.source_id, of_given=of_given)
        try:
            own = self._context(chain, head, context.epoch_id)
        except EpochNotReadyError:
            return None
        compare_contexts(context, source_id, own, self.source_id, of_given=of_given)
        return own

    def _selected(self, chain: RpcChain, head: RpcBlock, selector: str) -> CryptoHash:
        """Return the id of the epoch that a selector names."""
        if not (selector.isdecimal() and len(selector) <= 20):
            return CryptoHash.from_base58(selector)
        wanted = int(selector)
        newest = self._epoch(chain, head.header.epoch_id)
        back = newest.epoch_height - wanted
        if back < 0:
            raise EpochNotReadyError(
                problem=f"epoch {wanted} has not begun: the chain is in epoch {newest.epoch_height} ({head.header.epoch_id})",
                where=self.source_id,
                remedy="Wait for it.",
            )
        if back > EPOCHS_BACK_MAX:
            raise EpochNotReadyError(
                problem=f"epoch {wanted} is {back} epochs ago, a height is looked up for {EPOCHS_BACK_MAX}",
                where=self.source_id,
                remedy="Name the epoch by its id.",
            )
        epoch_id, block = head.header.epoch_id, head
        for _ in range(back):
            epoch_id = self._epoch_before(chain, block)
            block = self._last_block_before(chain, block)
        if self._epoch(chain, epoch_id).epoch_height != wanted:
            raise IntegrityError(problem=f"the epoch {back} before the newest, {epoch_id}, is not of height {wanted}", where=self.source_id)
        return epoch_id

    def _epoch_before(self, chain: RpcChain, block: RpcBlock) -> CryptoHash:
        return self._last_block_before(chain, block).header.epoch_id

    def _last_block_before(self, chain: RpcChain, block: RpcBlock) -> RpcBlock:
        """Return the last block of the epoch before a block's own: its hash is the id of the epoch after that."""
        last = chain.last_block_before(block)
        if last is None:
            raise EpochNotReadyError(
                problem=f"the endpoint does not have block {block.header.next_epoch_id}, the last one before epoch {block.header.epoch_id}",
                where=self.source_id,
                remedy=ASK_ANOTHER,
            )
        return last

    def _epoch(self, chain: RpcChain, epoch_id: CryptoHash) -> RpcEpoch:
        epoch = chain.epoch(epoch_id)
        if epoch is None:
            raise EpochNotReadyError(problem=f"the endpoint does not know epoch {epoch_id}", where=self.source_id, remedy=ASK_ANOTHER)
        return epoch

    def _context(self, chain: RpcChain, head: RpcBlock, epoch_id: CryptoHash) -> EpochContext:
        epoch = self._epoch(chain, epoch_id)
        first = next(chain.blocks_from(epoch.epoch_start_height, head.header.height), None)
        config = None if first is None else chain.protocol_config(first)
        if first is None or config is None:
            raise EpochNotReadyError(
                problem=f"the endpoint does not have the blocks of epoch {epoch.epoch_height} ({epoch_id}), or no longer",
                where=self.source_id,
                remedy=ASK_ANOTHER,
            )
        blocks = chain.blocks_from(epoch.epoch_start_height, head.header.height)
        sync_block = find_sync_block(blocks, epoch_id, config.protocol_version, self.source_id)
        if sync_block is None:
            raise _NotKnownYetError(
                problem=f"the sync hash of epoch {epoch.epoch_height} ({epoch_id}) is not known yet: its sync block is not among the final "
                f"blocks, the newest of which is at height {head.header.height}",
                where=self.source_id,
                remedy="Wait some blocks.",
            )
        parent = chain.block(sync_block.header.prev_hash)
        shards_config = None if parent is None else chain.protocol_config(parent)
        if parent is None or shards_config is None:
            raise EpochNotReadyError(
                problem=f"the endpoint does not have the block before the sync block, {sync_block.header.prev_hash}",
                where=self.source_id,
                remedy=ASK_ANOTHER,
            )
        return EpochContext(
            chain_id=config.chain_id,
            epoch_height=epoch.epoch_height,
            epoch_id=epoch_id,
            sync_hash=sync_block.header.hash,
            protocol_version=config.protocol_version,
            shards=self._shards(chain, parent, shards_config),
            block_headers=(sync_block.header.encoded, parent.header.encoded),
            shard_layout=shards_config.shard_layout.assignment,
        )

    def _shards(self, chain: RpcChain, parent: RpcBlock, config: RpcProtocolConfig) -> tuple[ShardContext, ...]:
        layout = config.shard_layout
        ids = tuple(chunk.shard_id for chunk in parent.chunk_headers)
        if ids != layout.shard_ids:
            raise IntegrityError(
                problem=f"the shard layout has shards {list(layout.shard_ids)}, block {parent.header.hash} has chunks of {list(ids)}",
                where=self.source_id,
            )
        before = self._config_before(chain, parent) if layout.parent_shard_ids else None
        shards = [
            ShardContext(
                shard_uid=ShardUId(version=layout.version, shard_id=chunk.shard_id),
                state_root=chunk.prev_state_root,
                flat_head_target=chunk.prev_block_hash,
                parent_shard_uid=layout.parent_of(chunk.shard_id, None if before is None else before.shard_layout),
                flat_head_header=_header_or_none(chain, chunk.prev_block_hash),
            )
            for chunk in parent.chunk_headers
        ]
        return tuple(sorted(shards, key=lambda shard: shard.shard_id))

    def _config_before(self, chain: RpcChain, block: RpcBlock) -> RpcProtocolConfig | None:
        """Return the configuration of the epoch before a block's own, where the endpoint still has it."""
        last = chain.last_block_before(block)
        return None if last is None else chain.protocol_config(last)


def _header_or_none(chain: RpcChain, block_hash: CryptoHash) -> bytes:
    """Return a header that nothing depends on; empty where the endpoint does not give it."""
    try:
        block = chain.block(block_hash)
    except SourceError:
        return b""
    return b"" if block is None else block.header.encoded


class _NotKnownYetError(EpochNotReadyError):
    """The epoch has begun and has no sync block yet."""
