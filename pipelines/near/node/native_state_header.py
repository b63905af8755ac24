"""State headers through the Rust module ``statecast_kernel``: computing one out of a node's rows, and verifying any.

Converts arguments and errors; the rules are in ``native/state_header``. There is no Python in its stead: transactions and receipts of
every protocol version would have to be understood. What a reader has to believe of a header, `schemas.nearcore.state_header` proves without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipelines.kernel.native import MODULE, load_module, native_errors
from schemas.errors import InvalidInputError
from schemas.ids import CryptoHash

ReadRow = Callable[[str, bytes], bytes | None]
"""A row by nearcore's name of its column (BlockHeader, Block, Chunks, IncomingReceipts, EpochInfo, State) and its key; None when
there is none. State is asked by node hash alone, and gives the node without a reference count. No column is ShardLayout, by epoch id: the
JSON of that epoch's shard layout, from a source that says it itself; EpochInfo is not asked for then."""


@dataclass(frozen=True, slots=True)
class HeaderChain:
    """What is not in the rows: it tells which receipts go to which shard."""

    chain_id: str
    genesis_layout: str | None
    """JSON of the shard layout that the genesis file or an epoch configuration has, where one does."""


@dataclass(frozen=True, slots=True)
class VerifiedStateHeader:
    """What a state header that was verified says."""

    version: int
    chunk_hash: CryptoHash
    height_included: int
    """Height of the block that the chunk was new in."""
    state_root: CryptoHash
    memory_usage: int
    blocks: int
    """Blocks whose incoming receipts it holds."""
    receipts: int
    """Incoming receipts that it holds, all blocks together."""


def compute_state_header(read_row: ReadRow, chain: HeaderChain, sync_hash: CryptoHash, shard_id: int) -> bytes:
    """Compute a shard's ShardStateSyncResponseHeader as neard would, byte for byte, and verify it.

    Raises:
        InvalidInputError: the wheel is not installed, or older than this.
        SourceError: rows are missing, or the shard layout is not known or changes on the way.
        IntegrityError: a row can't be decoded, or does not hash as it should.

    Source: nearcore chain/chain/src/state_sync/adapter.rs, compute_state_response_header.
    """
    _check_wheel()
    with native_errors():
        import statecast_kernel

        return statecast_kernel.compute_state_header(read_row, sync_hash, shard_id, chain.chain_id, chain.genesis_layout)


def verify_state_header(header: bytes, read_row: ReadRow, chain: HeaderChain, sync_hash: CryptoHash, shard_id: int) -> VerifiedStateHeader:
    """Verify a state header from the hash of the sync block down.

    Rows of BlockHeader and EpochInfo are needed; with rows of Block what nearcore leaves unbound is compared too.

    Raises:
        InvalidInputError: the wheel is not installed, or older than this.
        SourceError: rows are missing, or the shard layout is not known.
        IntegrityError: the header is not that of this shard at this block.

    Source: nearcore chain/chain/src/state_sync/adapter.rs, set_state_header; chain/chain/src/validate.rs, validate_chunk_proofs.
    """
    _check_wheel()
    with native_errors():
        import statecast_kernel

        found = statecast_kernel.verify_state_header(header, read_row, sync_hash, shard_id, chain.chain_id, chain.genesis_layout)
    version, chunk_hash, height_included, state_root, memory_usage, blocks, receipts = found
    return VerifiedStateHeader(version, CryptoHash(chunk_hash), height_included, CryptoHash(state_root), memory_usage, blocks, receipts)


def _check_wheel() -> None:
    if not hasattr(load_module(), "compute_state_header"):
        raise InvalidInputError(
            problem="the installed native wheel is older than this and knows no state headers",
            where=MODULE,
            remedy="Build and install native/binding again.",
        )
