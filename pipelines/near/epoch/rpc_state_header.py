"""State headers verified by the blocks that a JSON-RPC endpoint shows: for headers that come from anywhere.

Every block is asked for by a hash that a verified one names, the sync block's first, so an endpoint can leave out and not change. The shard
layout is its word; a wrong one can't go unseen, since receipts grouped by it have the root that the chunk's hash was made of, or not.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from pipelines.near.epoch.rpc_chain import RpcChain
from pipelines.near.epoch.rpc_client import RpcClient
from pipelines.near.node.native_state_header import HeaderChain, VerifiedStateHeader, verify_state_header
from schemas.errors import IntegrityError, SourceError
from schemas.ids import CryptoHash
from schemas.nearcore.rpc_block import RpcBlock


class RpcStateHeaders:
    """Verifies state headers of one chain.

    Args:
        clients: endpoints, of which the first one that has the blocks is enough.
    """

    def __init__(self, clients: Sequence[RpcClient], chain_id: str) -> None:
        assert clients, "nothing could be asked"
        self._chain = HeaderChain(chain_id, None)
        self._rows = [_RpcRows(RpcChain(client)) for client in clients]
        # Their blocks are kept between headers.
        self._lock = threading.Lock()

    def verify(self, header: bytes, sync_hash: CryptoHash, shard_id: int) -> VerifiedStateHeader:
        """Verify a header from the hash of the sync block down.

        Raises:
            InvalidInputError: the native wheel is not installed, or older than this.
            SourceError: no endpoint has the blocks, or gives an answer.
            IntegrityError: the header is not that of this shard at this block.
        """
        problem: SourceError | None = None
        with self._lock:
            for rows in self._rows:
                try:
                    return verify_state_header(header, rows.read, self._chain, sync_hash, shard_id)
                except SourceError as error:
                    problem = problem or error
                except _EndpointFaultError as fault:
                    problem = problem or SourceError(problem=fault.error.problem, where=fault.error.where)
        assert problem is not None, "there is an endpoint"
        raise problem


class _EndpointFaultError(Exception):
    """Carries an endpoint's own wrong answer past the verdict on a header. Never leaves this module."""

    def __init__(self, error: IntegrityError) -> None:
        super().__init__(str(error))
        self.error = error


class _RpcRows:
    def __init__(self, chain: RpcChain) -> None:
        self._chain = chain
        self._of_epoch: dict[CryptoHash, RpcBlock] = {}

    def read(self, column: str, key: bytes) -> bytes | None:
        """Return a row; see `native_state_header.ReadRow`."""
        try:
            if column == "BlockHeader":
                block = self._chain.block(CryptoHash(key))
                if block is None:
                    return None
                self._of_epoch[block.header.epoch_id] = block
                return block.header.encoded
            if column == "ShardLayout" and (of_epoch := self._of_epoch.get(CryptoHash(key))) is not None:
                config = self._chain.protocol_config(of_epoch)
                return None if config is None else config.layout_json.encode()
        except IntegrityError as error:
            raise _EndpointFaultError(error) from None
        return None
