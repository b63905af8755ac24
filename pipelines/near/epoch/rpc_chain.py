"""The chain as one JSON-RPC endpoint shows it: blocks whose hashes were recomputed, and the endpoint's word on epochs.

Answers are kept for one look-up, so that each block is asked for once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pipelines.near.epoch.rpc_client import RpcClient
from pipelines.near.epoch.sync_block import HEIGHTS_MAX
from schemas.errors import EpochNotReadyError, IntegrityError, SourceError
from schemas.ids import CryptoHash
from schemas.nearcore.rpc_block import RpcBlock, read_rpc_block
from schemas.nearcore.rpc_epoch import RpcEpoch, RpcProtocolConfig, read_rpc_epoch, read_rpc_protocol_config

EMPTY_HEIGHTS_MAX: Final = 512
"""Most heights in a row without a block."""

LAST_HEIGHTS_MAX: Final = 16
"""Most heights that are asked for below an epoch's first, where the last block of the epoch before is not known by its hash."""

ASK_ANOTHER: Final = "Ask an archival node's endpoint, or take the epoch from a node's database."

_BLOCK = "block"
_EPOCH = "validators"
_CONFIG = "EXPERIMENTAL_protocol_config"


class RpcChain:
    """Blocks and epochs of one endpoint."""

    def __init__(self, client: RpcClient, empty_heights_max: int = EMPTY_HEIGHTS_MAX) -> None:
        self._client = client
        self._empty_heights_max = empty_heights_max
        self._blocks: dict[CryptoHash, RpcBlock] = {}
        self._by_height: dict[int, RpcBlock] = {}
        self._configs: dict[CryptoHash, RpcProtocolConfig] = {}
        self._final_config: RpcProtocolConfig | None = None

    def final_block(self) -> RpcBlock:
        """Return the newest final block.

        Raises:
            EpochNotReadyError: the node is still catching up.
            SourceError, IntegrityError: no usable answer.
        """
        block = self._block({"finality": "final"})
        if block is None:
            raise EpochNotReadyError(
                problem="the endpoint has no final block yet", where=self._client.where(_BLOCK), remedy="Wait until its node has caught up."
            )
        return block

    def block(self, block_hash: CryptoHash) -> RpcBlock | None:
        """Return a block by its hash; None when the endpoint does not know it, or no longer.

        Raises:
            SourceError, IntegrityError: no usable answer.
        """
        found = self._blocks.get(block_hash) or self._block({"block_id": str(block_hash)})
        if found is not None and found.header.hash != block_hash:
            raise IntegrityError(
                problem=f"asked for block {block_hash}, the endpoint answers with block {found.header.hash}",
                where=self._client.where(_BLOCK),
            )
        return found

    def last_block_before(self, block: RpcBlock) -> RpcBlock | None:
        """Return the last block of the epoch before a block's own: its hash is the id of the epoch after that.

        An endpoint may know blocks by height alone, as one that serves stored answers does: then the heights below the epoch's first
        are tried, and what is found there must have that hash.

        Raises:
            SourceError, IntegrityError: no usable answer.
        """
        block_hash = block.header.next_epoch_id
        found = self.block(block_hash)
        epoch = None if found is not None else self.epoch(block.header.epoch_id)
        if epoch is None:
            return found
        for height in range(epoch.epoch_start_height - 1, max(epoch.epoch_start_height - 1 - LAST_HEIGHTS_MAX, -1), -1):
            candidate = self._at_height(height)
            if candidate is not None:
                return candidate if candidate.header.hash == block_hash else None
        return None

    def blocks_from(self, height: int, last_height: int) -> Iterator[RpcBlock]:
        """Yield the blocks of a range of heights, ascending; nothing when the first height has none.

        Raises:
            SourceError: the endpoint lacks a block that a later one is the child of, or has none for very long; no usable answer.
            IntegrityError: an answer does not hash, or is of another height.
        """
        previous: RpcBlock | None = None
        empty = 0
        for candidate in range(height, min(last_height + 1, height + HEIGHTS_MAX)):
            block = self._at_height(candidate)
            if block is None:
                empty += 1
                if previous is None:
                    return
                if empty > self._empty_heights_max:
                    raise SourceError(
                        problem=f"the endpoint has no block of {empty} heights in a row up to {candidate}",
                        where=self._client.where(_BLOCK),
                        remedy=ASK_ANOTHER,
                    )
                continue
            if previous is not None and block.prev_height is not None and block.prev_height > previous.header.height:
                raise SourceError(
                    problem=f"the endpoint has no block of height {block.prev_height}, but block {block.header.hash} is its child",
                    where=self._client.where(_BLOCK),
                    remedy="Try again, or name another endpoint with --rpc.",
                )
            empty = 0
            previous = block
            yield block

    def epoch(self, epoch_id: CryptoHash) -> RpcEpoch | None:
        """Return an epoch's heights; None when the endpoint does not know the epoch.

        Raises:
            SourceError: no usable answer.
        """
        answer = self._client.call(_EPOCH, {"epoch_id": str(epoch_id)})
        return None if answer.not_known else read_rpc_epoch(answer.result, self._client.where(_EPOCH))

    def protocol_config(self, block: RpcBlock) -> RpcProtocolConfig | None:
        """Return the protocol configuration of a block's epoch; None when the endpoint no longer knows it.

        Where the endpoint shows a block and has no configuration for it, that of its newest final block is taken, if it is of the
        version that the block's producer had and of the block's shards. In the two epochs before an upgrade that version may be one
        above the epoch's: like all of a configuration it is the endpoint's word.

        Raises:
            SourceError: no usable answer.
        """
        epoch_id = block.header.epoch_id
        if epoch_id not in self._configs:
            config = self._config({"block_id": str(block.header.hash)})
            if config is None:
                config = self._final_config = self._final_config or self._config({"finality": "final"})
                if config is None or not _may_be_of(config, block):
                    return None
            self._configs[epoch_id] = config
        return self._configs[epoch_id]

    def _config(self, params: object) -> RpcProtocolConfig | None:
        answer = self._client.call(_CONFIG, params)
        return None if answer.not_known else read_rpc_protocol_config(answer.result, self._client.where(_CONFIG))

    def _at_height(self, height: int) -> RpcBlock | None:
        block = self._by_height.get(height) or self._block({"block_id": height})
        if block is None:
            return None
        if block.header.height != height:
            raise IntegrityError(
                problem=f"asked for the block of height {height}, the endpoint answers with one of height {block.header.height}",
                where=self._client.where(_BLOCK),
            )
        self._by_height[height] = block
        return block

    def _block(self, params: object) -> RpcBlock | None:
        answer = self._client.call(_BLOCK, params)
        if answer.not_known:
            return None
        block = read_rpc_block(answer.result, self._client.where(_BLOCK))
        self._blocks[block.header.hash] = block
        return block


def _may_be_of(config: RpcProtocolConfig, block: RpcBlock) -> bool:
    shard_ids = tuple(chunk.shard_id for chunk in block.chunk_headers)
    return config.protocol_version == block.latest_protocol_version and config.shard_layout.shard_ids == shard_ids
