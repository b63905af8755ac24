"""Makes a proof out of a node's State column: at the state root of an epoch's parts, or after a block.

The state *after* block B is what nearcore's ``view_state`` answers from for B: the ChunkExtra row of B and the shard. The chunk that a
later block includes and that was made on top of B commits to that root as its ``prev_state_root``. So the headers that tie the root to
the chain are those of the next block, and are there when it is, and when it has a new chunk of the shard.

Source: nearcore chain/client/src/view_client_actor.rs, handle_query; core/primitives/src/types.rs, ChunkExtra.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipelines.near.epoch.chain_rows import ChainRows, open_chain_rows
from pipelines.near.epoch.node_context import epoch_context_from_node
from pipelines.near.node.configured_layouts import known_layouts
from pipelines.near.node.genesis_head import read_genesis_fields
from pipelines.near.node.node_columns import BLOCK, BLOCK_HEADER, BLOCK_HEIGHT, CHUNK_EXTRA
from pipelines.near.node.node_home import NodeHome, read_node_home
from pipelines.near.node.state_column import StateColumn
from pipelines.near.trie.trie_walk_source import StateWalk
from pipelines.proving.make_proof import has_key, make_claim
from pipelines.proving.node_readers import NodesOfColumn
from pipelines.proving.shard_choice import choose_shard
from pipelines.proving.verify_trie_proof import VerifiedProof, verify_trie_proof
from pipelines.proving.wanted_record import WantedRecord
from schemas.errors import EpochNotReadyError, IntegrityError, SourceError
from schemas.ids import HASH_BYTES, CryptoHash, ShardUId
from schemas.nearcore.block import BlockHeader, ChunkHeader, decode_block_chunks, decode_block_header
from schemas.nearcore.shard_layout import ShardLayout, shard_layout_from_json
from schemas.nearcore.trie_key import account_key
from schemas.published.proof import TrieProof
from schemas.published.proof_chain import ChainEvidence, evidence_from_block

NEXT_HEIGHTS_MAX: Final = 1000
"""Heights after a block that are searched for the next one; heights without a block are few."""

_COLUMNS: Final = (BLOCK, BLOCK_HEADER, BLOCK_HEIGHT, CHUNK_EXTRA)


@dataclass(frozen=True, slots=True)
class NodeProofRequest:
    """What is to be proven, and at which state."""

    node_home: Path
    wanted: WantedRecord
    epoch: str = "latest"
    """``latest``, a height or an id; of no meaning where a block is named."""
    block: str | None = None
    """Height or hash of the block after which the state is meant."""
    shard_id: int | None = None
    shard_layout: ShardLayout | None = None
    """None to take the node's own, where it is that of the state."""


@dataclass(frozen=True, slots=True)
class _Including:
    """The block that includes the chunks of the state roots."""

    header: BlockHeader
    row: bytes
    child_header: bytes | None


@dataclass(frozen=True, slots=True)
class _State:
    """The state of all shards at one place of the chain."""

    chain_id: str
    epoch_height: int | None
    epoch_id: CryptoHash | None
    roots: Mapping[ShardUId, tuple[CryptoHash, CryptoHash]]
    """State root, and the block after which it stands."""
    shard_ids: frozenset[int]
    """All shards, also those that the node does not track."""
    including: _Including | None
    shard_layout: ShardLayout | None
    """None where the node does not tell it."""


def prove_from_node(request: NodeProofRequest) -> VerifiedProof:
    """Make and verify a proof.

    Raises:
        EpochNotReadyError: the node does not have the block or epoch.
        InvalidInputError: the shard can't be told, or a prefix has too many keys.
        SourceError: the database can't be read.
        IntegrityError: a node of the trie is not there, or something does not hash.
    """
    home = read_node_home(request.node_home.expanduser())
    with open_chain_rows(home, _COLUMNS) as rows:
        state = _state_of_epoch(rows, request) if request.block is None else _state_after_block(rows, request.block, home)
    shard_uid, chosen_by = choose_shard(
        offered=sorted(state.roots),
        num_shards=len(state.shard_ids),
        shard_id=request.shard_id,
        account_id=request.wanted.account_id,
        shard_layout=request.shard_layout or state.shard_layout,
        has_account=lambda uid: _has_account(home, uid, state.roots[uid][0], request.wanted.account_id),
    )
    state_root, block_hash = state.roots[shard_uid]
    claim, nodes = make_claim(NodesOfColumn(StateColumn(home, shard_uid)), state_root, request.wanted)
    proof = TrieProof(
        chain_id=state.chain_id,
        epoch_height=state.epoch_height,
        epoch_id=state.epoch_id,
        shard_uid=shard_uid,
        shard_chosen_by=chosen_by,
        state_root=state_root,
        block_hash=block_hash,
        claim=claim,
        nodes=nodes,
        chain=_evidence(state.including, shard_uid, state_root, block_hash),
    )
    return verify_trie_proof(proof, f"proof from {home.home}")


def _has_account(home: NodeHome, shard_uid: ShardUId, state_root: CryptoHash, account_id: str | None) -> bool:
    return account_id is not None and has_key(NodesOfColumn(StateColumn(home, shard_uid)), state_root, account_key(account_id))


def _configured_layout(home: NodeHome, shard_uids: Collection[ShardUId], shard_ids: Collection[int]) -> ShardLayout | None:
    """Return the layout that has the state's shards, in their version, where the genesis file or an epoch configuration has it.

    Args:
        shard_uids: of the shards that the node tracks.
        shard_ids: of all.
    """
    layouts = (shard_layout_from_json(document, str(file)) for document, file in known_layouts(home))
    return next((one for one in layouts if set(shard_ids) == set(one.shard_ids) and set(shard_uids) <= set(one.shard_uids)), None)


def _state_of_epoch(rows: ChainRows, request: NodeProofRequest) -> _State:
    context = epoch_context_from_node(request.node_home.expanduser(), request.epoch, StateWalk.AUTO)
    sync_block, parent_header = context.block_headers
    parent = decode_block_header(parent_header, f"parent of the sync block, {rows.folder}")
    row = rows.get(BLOCK, parent.hash)
    roots = {
        shard.shard_uid: (shard.state_root, shard.flat_head_target)
        for shard in context.shards
        if shard.state_root is not None and shard.flat_head_target is not None
    }
    return _State(
        chain_id=context.chain_id,
        epoch_height=context.epoch_height,
        epoch_id=context.epoch_id,
        roots=roots,
        shard_ids=frozenset(shard.shard_id for shard in context.shards),
        including=None if row is None else _Including(parent, row, sync_block),
        shard_layout=context.shard_layout,
    )


def _state_after_block(rows: ChainRows, block: str, home: NodeHome) -> _State:
    chain_id = None if home.genesis_file is None else read_genesis_fields(home.genesis_file, ("chain_id",)).get("chain_id")
    if not isinstance(chain_id, str):
        raise SourceError(problem="the node's genesis file, which alone has the chain id, is not there", where=str(rows.folder))
    header = _header(rows, _block_hash(rows, block))
    chunks = _chunks(rows, header)
    if chunks is None:
        raise EpochNotReadyError(problem=f"the node no longer has block {header.hash}", where=str(rows.folder))
    shard_ids = frozenset(chunk.shard_id for chunk in chunks[1])
    roots = {uid: (root, header.hash) for uid, root in _chunk_extras(rows, header.hash).items() if uid.shard_id in shard_ids}
    if not roots:
        raise EpochNotReadyError(problem=f"the node has no state after block {header.hash}", where=f"ChunkExtra, {rows.folder}")
    return _State(chain_id, None, None, roots, shard_ids, _next_block(rows, header), _configured_layout(home, roots, shard_ids))


def _block_hash(rows: ChainRows, block: str) -> CryptoHash:
    if not block.isdecimal() or len(block) > 20:
        return CryptoHash.from_base58(block)
    height = int(block)
    found = rows.get(BLOCK_HEIGHT, struct.pack("<Q", height)) if height < 2**64 else None
    if found is None:
        raise EpochNotReadyError(problem=f"the node has no block at height {block}", where=str(rows.folder))
    return CryptoHash(found)


def _header(rows: ChainRows, block_hash: CryptoHash) -> BlockHeader:
    row = rows.get(BLOCK_HEADER, block_hash)
    if row is None:
        raise EpochNotReadyError(problem=f"the node does not have the header of block {block_hash}", where=str(rows.folder))
    return decode_block_header(row, f"BlockHeader {block_hash}, {rows.folder}", block_hash)


def _chunks(rows: ChainRows, header: BlockHeader) -> tuple[bytes, tuple[ChunkHeader, ...]] | None:
    row = rows.get(BLOCK, header.hash)
    return None if row is None else (row, decode_block_chunks(row, header, f"Block {header.hash}, {rows.folder}"))


def _chunk_extras(rows: ChainRows, block_hash: CryptoHash) -> dict[ShardUId, CryptoHash]:
    """Return the state root after a block by shard; a ChunkExtra begins with a tag and the state root."""
    return {
        ShardUId.from_bytes(key[HASH_BYTES:]): CryptoHash(row[1 : 1 + HASH_BYTES])
        for found in rows.scan(CHUNK_EXTRA, block_hash, block_hash + b"\xff" * 9)
        for key, row in found
        if len(key) == HASH_BYTES + 8 and len(row) > HASH_BYTES
    }


def _next_block(rows: ChainRows, header: BlockHeader) -> _Including | None:
    for height in range(header.height + 1, header.height + 1 + NEXT_HEIGHTS_MAX):
        block_hash = rows.get(BLOCK_HEIGHT, struct.pack("<Q", height))
        if block_hash is not None:
            child = _header(rows, CryptoHash(block_hash))
            chunks = _chunks(rows, child) if child.prev_hash == header.hash else None
            return None if chunks is None else _Including(child, chunks[0], None)
    return None


def _evidence(including: _Including | None, shard_uid: ShardUId, state_root: CryptoHash, block_hash: CryptoHash) -> ChainEvidence | None:
    """Return the headers for a state root; None where the next block has no new chunk of the shard."""
    if including is None:
        return None
    where = f"Block {including.header.hash}"
    evidence = evidence_from_block(including.row, including.header, shard_uid.shard_id, including.child_header, where)
    chunk = None if evidence is None else evidence.prove(None, where).chunk
    if chunk is None or chunk.prev_block_hash != block_hash:
        return None
    if chunk.prev_state_root != state_root:
        raise IntegrityError(
            problem=f"the node has state root {state_root} of shard {shard_uid} after block {block_hash}, its chain says {chunk.prev_state_root}",
            where=where,
        )
    return evidence
