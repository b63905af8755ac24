"""The chain as one JSON-RPC endpoint shows it: blocks whose hashes were recomputed, and the endpoint's word on epochs.

Answers are kept for one look-up, so that each block is asked for once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pipelines.epochs.rpc_client import RpcClient
from pipelines.epochs.sync_block import HEIGHTS_MAX
from schemas.errors import EpochNotReadyError, IntegrityError, SourceError
from schemas.ids import CryptoHash
from schemas.rpc_block import RpcBlock, read_rpc_block
from schemas.rpc_epoch import RpcEpoch, RpcProtocolConfig, read_rpc_epoch, read_rpc_protocol_config

EMPTY_HEIGHTS_MAX: Final = 512
"""Most heights in a row without a block."""

ASK_ANOTHER: Final = "Ask an archival node's endpoint, or take the epoch from a node's database."

_BLOCK = "block"
_EPOCH = "validators"
_CONFIG = "EXPERIMENTAL_protocol_config"


class RpcChain:
    """Blocks and epochs of one endpoint."""

    def __init__(self, client: RpcClient) -> None:
        self._client = client
        self._blocks: dict[CryptoHash, RpcBlock] = {}
        self._by_height: dict[int, RpcBlock] = {}
        self._configs: dict[CryptoHash, RpcProtocolConfig] = {}

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

    def blocks_from(self, height: int, last_height: int) -> Iterator[RpcBlock]:
        """Yield the blocks of a range of heights, ascending; nothing when the first height has none.

        Raises:
            SourceError: the endpoint lacks a block that a later one is the child of, or has none for very long; no usable answer.
            IntegrityError: an answer does not hash, or is of another height.
        """
        previous: RpcBlock | None = None
        empty = 0
        for candidate in range(height, min(last_height + 1, height + HEIGHTS_MAX)):
            block = self._by_height.get(candidate) or self._block({"block_id": candidate})
            if block is None:
                empty += 1
                if previous is None:
                    return
                if empty > EMPTY_HEIGHTS_MAX:
                    raise SourceError(
                        problem=f"the endpoint has no block of {empty} heights in a row up to {candidate}",
                        where=self._client.where(_BLOCK),
                        remedy=ASK_ANOTHER,
                    )
                continue
            if block.header.height != candidate:
                raise IntegrityError(
                    problem=f"asked for the block of height {candidate}, the endpoint answers with one of height {block.header.height}",
                    where=self._client.where(_BLOCK),
                )
            if previous is not None and block.prev_height is not None and block.prev_height > previous.header.height:
                raise SourceError(
                    problem=f"the endpoint has no block of height {block.prev_height}, but block {block.header.hash} is its child",
                    where=self._client.where(_BLOCK),
                    remedy="Try again, or name another endpoint with --rpc.",
                )
            self._by_height[candidate] = block
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

        Raises:
            SourceError: no usable answer.
        """
        epoch_id = block.header.epoch_id
        if epoch_id not in self._configs:
            answer = self._client.call(_CONFIG, {"block_id": str(block.header.hash)})
            if answer.not_known:
                return None
            self._configs[epoch_id] = read_rpc_protocol_config(answer.result, self._client.where(_CONFIG))
        return self._configs[epoch_id]

    def _block(self, params: object) -> RpcBlock | None:
        answer = self._client.call(_BLOCK, params)
        if answer.not_known:
            return None
        block = read_rpc_block(answer.result, self._client.where(_BLOCK))
        self._blocks[block.header.hash] = block
        return block
