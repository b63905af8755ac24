"""The epoch context out of a node's database alone, every hash on the way recomputed.

StateSyncHashes gives the sync hash of the newest epochs, and `pipelines.epochs.sync_block` that of older ones; its block's parent holds
the chunk headers, whose Merkle root the parent's header commits to, and whose prev_state_root and prev_block_hash are the shard's state
root and the block that flat state must stand at. The chain id, which no column has, comes from the genesis file.

What is believed is the node: its database says which blocks are the chain. `pipelines.trust` ties a block hash to anything else.

Source: nearcore chain/chain/src/state_sync/adapter.rs, ChainStateSyncAdapter::compute_state_response_header.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.epochs.chain_rows import ChainRows, open_chain_rows
from pipelines.epochs.sync_block import SYNC_BLOCK_COLUMNS, find_sync_hash
from pipelines.sources.flat_state_location import FLAT_COLUMNS, locate_flat_state
from pipelines.sources.genesis_head import read_genesis_fields
from pipelines.sources.node_columns import BLOCK, BLOCK_HEADER, CHUNK_EXTRA, EPOCH_INFO, FLAT_STORAGE_STATUS, STATE_SYNC_HASHES
from pipelines.sources.node_home import NodeHome, read_node_home
from pipelines.sources.rocksdb_reader import cached_reader
from schemas.block import BlockHeader, ChunkHeader, decode_block_chunks, decode_block_header
from schemas.epoch_context import EpochContext, ShardContext
from schemas.epoch_info import decode_epoch_info
from schemas.errors import EpochNotReadyError, IntegrityError, InvalidInputError, SourceError
from schemas.flat_storage import decode_flat_storage_status
from schemas.ids import HASH_BYTES, CryptoHash, ShardUId
from schemas.shard_layout import ShardLayout, shard_layout_from_json

LATEST = "latest"
"""Selector of the newest epoch that the node has flat state for."""

_CHAIN_COLUMNS = (*SYNC_BLOCK_COLUMNS, CHUNK_EXTRA, EPOCH_INFO, STATE_SYNC_HASHES)
_USE_CONTEXT = "Give the epoch as a file with --context."


@dataclass(frozen=True, slots=True)
class NodeEpoch:
    """An epoch that a node knows."""

    epoch_height: int
    epoch_id: CryptoHash
    protocol_version: int
    sync_hash: CryptoHash | None
    """None when the epoch has not reached its sync block, or is too old for the node to keep it ready."""


def list_epochs(node_home: str | Path) -> tuple[NodeEpoch, ...]:
    """Return the epochs that the database has rows of, ascending by height; also the next ones, that have not begun.

    Raises:
        SourceError: the database can't be read.
        IntegrityError: a row can't be decoded.
    """
    with open_chain_rows(read_node_home(node_home), _CHAIN_COLUMNS) as reader:
        return _list_epochs(reader)


def newest_epoch(node_home: str | Path) -> NodeEpoch | None:
    """Return the newest epoch that the node has recorded a sync hash of; None when it has recorded none yet.

    Meant for polling: two column families are opened, and StateSyncHashes has a row or two, each followed by one EpochInfo. Whether
    the epoch can be produced from flat state is `flat_state_failure` of its context.

    Raises:
        SourceError: the database can't be read.
        IntegrityError: a row can't be decoded.
    """
    with open_chain_rows(read_node_home(node_home), (EPOCH_INFO, STATE_SYNC_HASHES)) as reader:
        epochs = [
            _node_epoch(reader, CryptoHash(key), info, CryptoHash(row))
            for rows in reader.scan(STATE_SYNC_HASHES, b"", None)
            for key, row in rows
            if (info := reader.get(EPOCH_INFO, key)) is not None
        ]
    return max(epochs, key=lambda epoch: (epoch.epoch_height, epoch.epoch_id), default=None)


def flat_state_failure(node_home: str | Path, context: EpochContext) -> SourceError | None:
    """Return why flat state of no shard can be brought to an epoch; None when that of some shard can.

    A node may track a few shards only, so one is enough. Costs a few point reads a shard, of an open view that is renewed when it is
    older than the epoch.

    Raises:
        SourceError: the node's home is not there.
        IntegrityError: a row can't be decoded.
    """
    return _unreachable(read_node_home(node_home), context)


def epoch_context_from_node(node_home: str | Path, selector: str = LATEST) -> EpochContext:
    """Build the context of one epoch.

    Args:
        selector: ``latest``, an epoch height, or an epoch id in base58.
    Raises:
        EpochNotReadyError: the node does not have the epoch, or can't tell its sync hash; for ``latest``, has flat state of none.
        InvalidInputError: no selector has this form.
        SourceError: the database or the genesis file can't be read.
        IntegrityError: a row can't be decoded, or a hash is wrong.
    """
    home = read_node_home(node_home)
    with open_chain_rows(home, _CHAIN_COLUMNS) as reader:
        epochs = _list_epochs(reader)
        if not any(epoch.sync_hash for epoch in epochs):
            raise EpochNotReadyError(problem="the node's database has no sync hash of any epoch", where=str(home.data), remedy=_USE_CONTEXT)
        if selector != LATEST:
            return _epoch_context(home, reader, _selected(reader, epochs, selector, home))
        failure: SourceError | None = None
        for epoch in reversed([epoch for epoch in epochs if epoch.sync_hash]):
            context = _epoch_context(home, reader, epoch)
            failure = _unreachable(home, context)
            if failure is None:
                return context
    raise EpochNotReadyError(
        problem=f"the node has flat state of none of the epochs that it has a sync hash of; of the oldest: {failure}",
        where=str(home.data),
        remedy="Wait for the next state snapshot, or name an epoch.",
    )


def check_context_against_node(context: EpochContext, node_home: str | Path) -> None:
    """Compare a given context with what the node knows of its epoch; a node that does not know it has no objection.

    Raises:
        InvalidInputError: the node's chain, epoch or state root is another; the field is named.
        SourceError, IntegrityError: the database can't be read.
    """
    home = read_node_home(node_home)
    where = f"node {home.home}"
    if home.genesis_file is not None and (chain_id := _genesis_head(home)[0]) != context.chain_id:
        raise InvalidInputError(problem=f"the context is of chain {context.chain_id}, the node is of chain {chain_id}", where=where)
    with open_chain_rows(home, _CHAIN_COLUMNS) as reader:
        known = next((epoch for epoch in _list_epochs(reader) if epoch.epoch_id == context.epoch_id), None)
        sync_hash = None if known is None else known.sync_hash or find_sync_hash(reader, known.epoch_id, known.protocol_version)
        if known is None or sync_hash is None:
            row = reader.get(BLOCK_HEADER, context.sync_hash)
            if row is not None and (header := decode_block_header(row, where, context.sync_hash)).epoch_id != context.epoch_id:
                raise InvalidInputError(
                    problem=f"sync_hash {context.sync_hash} is a block of epoch {header.epoch_id}, not {context.epoch_id}", where=where
                )
            return
        known = replace(known, sync_hash=sync_hash)
        ours = _epoch_context(home, reader, known)
    for name in ("epoch_height", "sync_hash", "protocol_version"):
        if getattr(context, name) != getattr(ours, name):
            raise InvalidInputError(
                problem=f"{name} is {getattr(context, name)} in the context and {getattr(ours, name)} at the node", where=where
            )
    for shard in context.shards:
        node_shard = ours.shard(shard.shard_id)
        for name in ("shard_uid", "state_root", "flat_head_target"):
            given, own = getattr(shard, name), getattr(node_shard, name)
            if given is not None and given != own:
                raise InvalidInputError(
                    problem=f"{name} of shard {shard.shard_id} is {given} in the context and {own} at the node", where=where
                )


def _list_epochs(reader: ChainRows) -> tuple[NodeEpoch, ...]:
    sync_hashes = {key: CryptoHash(row) for rows in reader.scan(STATE_SYNC_HASHES, b"", None) for key, row in rows}
    epochs = []
    for rows in reader.scan(EPOCH_INFO, b"", None):
        for key, row in rows:
            # The column also holds an aggregator under a text key.
            if len(key) == HASH_BYTES:
                epochs.append(_node_epoch(reader, CryptoHash(key), row, sync_hashes.get(key)))
    return tuple(sorted(epochs, key=lambda epoch: (epoch.epoch_height, epoch.sync_hash is not None, epoch.epoch_id)))


def _node_epoch(reader: ChainRows, epoch_id: CryptoHash, row: bytes, sync_hash: CryptoHash | None) -> NodeEpoch:
    info = decode_epoch_info(row, f"EpochInfo of epoch {epoch_id}, {reader.folder}")
    return NodeEpoch(info.epoch_height, epoch_id, info.protocol_version, sync_hash)


def _selected(reader: ChainRows, epochs: tuple[NodeEpoch, ...], selector: str, home: NodeHome) -> NodeEpoch:
    if selector.isdecimal() and len(selector) <= 20:
        found = [epoch for epoch in epochs if epoch.epoch_height == int(selector)]
    else:
        epoch_id = CryptoHash.from_base58(selector)
        found = [epoch for epoch in epochs if epoch.epoch_id == epoch_id]
    known = ", ".join(f"{epoch.epoch_height} ({epoch.epoch_id})" for epoch in epochs if epoch.sync_hash)
    remedy = f"It has the sync hash of {known}. {_USE_CONTEXT}"
    if not found:
        raise EpochNotReadyError(problem=f"the node does not know epoch {selector}", where=str(home.data), remedy=remedy)
    # Of several epochs of one height, as there are before the chain's second, the one that can be had is meant.
    for epoch in reversed(found):
        sync_hash = epoch.sync_hash or find_sync_hash(reader, epoch.epoch_id, epoch.protocol_version)
        if sync_hash is not None:
            return replace(epoch, sync_hash=sync_hash)
    raise EpochNotReadyError(
        problem=f"the node has no sync hash of epoch {selector}: the epoch has not come to its sync block, or its blocks are gone",
        where=str(home.data),
        remedy=remedy,
    )


def _epoch_context(home: NodeHome, reader: ChainRows, epoch: NodeEpoch) -> EpochContext:
    assert epoch.sync_hash is not None
    sync_block = _header(reader, epoch.sync_hash)
    if sync_block.epoch_id != epoch.epoch_id:
        raise IntegrityError(
            problem=f"the sync block {epoch.sync_hash} is of epoch {sync_block.epoch_id}, not {epoch.epoch_id}",
            where=f"StateSyncHashes, {reader.folder}",
        )
    parent = _header(reader, sync_block.prev_hash)
    where = f"Block {parent.hash}, {reader.folder}"
    row = reader.get(BLOCK, parent.hash)
    if row is None:
        raise EpochNotReadyError(
            problem=f"the node does not have the block before the sync block, {parent.hash}", where=where, remedy=_USE_CONTEXT
        )
    chunks = decode_block_chunks(row, parent, where)
    chain_id, layout = _genesis_head(home)
    statuses = _status_shard_uids(home)
    shards = [
        ShardContext(
            shard_uid=_recorded_shard_uid(reader, chunk) or _shard_uid(home, chunk, statuses, layout),
            state_root=chunk.prev_state_root,
            flat_head_target=chunk.prev_block_hash,
        )
        for chunk in chunks
    ]
    return EpochContext(
        chain_id=chain_id,
        epoch_height=epoch.epoch_height,
        epoch_id=epoch.epoch_id,
        sync_hash=epoch.sync_hash,
        protocol_version=epoch.protocol_version,
        shards=tuple(sorted(shards, key=lambda shard: shard.shard_id)),
        block_headers=(sync_block.encoded, parent.encoded),
    )


def _header(reader: ChainRows, block_hash: CryptoHash) -> BlockHeader:
    where = f"BlockHeader {block_hash}, {reader.folder}"
    row = reader.get(BLOCK_HEADER, block_hash)
    if row is None:
        raise EpochNotReadyError(problem=f"the node does not have the header of block {block_hash}", where=where, remedy=_USE_CONTEXT)
    return decode_block_header(row, where, block_hash)


def _genesis_head(home: NodeHome) -> tuple[str, ShardLayout | None]:
    """Return chain id and shard layout of the genesis file."""
    if home.genesis_file is None:
        raise SourceError(
            problem="config.json names no genesis_file, which alone has the chain id",
            where=str(home.home / "config.json"),
            remedy=_USE_CONTEXT,
        )
    fields = read_genesis_fields(home.genesis_file, ("chain_id", "shard_layout"))
    chain_id = fields.get("chain_id")
    if not isinstance(chain_id, str):
        raise SourceError(problem="the genesis file has no chain_id", where=str(home.genesis_file), remedy=_USE_CONTEXT)
    layout = fields.get("shard_layout")
    return chain_id, None if layout is None else shard_layout_from_json(layout, str(home.genesis_file))


def _status_shard_uids(home: NodeHome) -> dict[int, list[ShardUId]]:
    """Return the shards that the hot store has Ready flat storage of, by shard id."""
    reader = cached_reader(home.data, FLAT_COLUMNS, reopen=True)
    found: dict[int, list[ShardUId]] = {}
    for rows in reader.scan(FLAT_STORAGE_STATUS, b"", None):
        for key, row in rows:
            if decode_flat_storage_status(row, f"FlatStorageStatus {key.hex()}, {reader.folder}").flat_head is not None:
                shard_uid = ShardUId.from_bytes(key)
                found.setdefault(shard_uid.shard_id, []).append(shard_uid)
    return found


def _recorded_shard_uid(reader: ChainRows, chunk: ChunkHeader) -> ShardUId | None:
    """Find the shard uid under which the node keeps what applying the block before left: the one that the shard had then.

    Source: nearcore core/primitives/src/types.rs, ChunkExtra: a tag and the state root come first.
    """
    found = [
        ShardUId.from_bytes(key[HASH_BYTES:])
        for rows in reader.scan(CHUNK_EXTRA, chunk.prev_block_hash, chunk.prev_block_hash + b"\xff" * 9)
        for key, row in rows
        if len(key) == HASH_BYTES + 8 and row[1 : 1 + HASH_BYTES] == chunk.prev_state_root
    ]
    found = [shard_uid for shard_uid in found if shard_uid.shard_id == chunk.shard_id]
    return found[0] if len(found) == 1 else None


def _shard_uid(home: NodeHome, chunk: ChunkHeader, statuses: dict[int, list[ShardUId]], layout: ShardLayout | None) -> ShardUId:
    """Find the version that makes a shard id a shard uid: no column of a block has it."""
    candidates = statuses.get(chunk.shard_id, [])
    if len(candidates) > 1:
        candidates = [uid for uid in candidates if _location_failure(home, uid, chunk.prev_block_hash) is None]
    if not candidates and layout is not None and chunk.shard_id in layout.shard_ids:
        candidates = [ShardUId(version=layout.version, shard_id=chunk.shard_id)]
    if len(candidates) != 1:
        raise EpochNotReadyError(
            problem=f"the version of shard {chunk.shard_id} can't be told from the node's flat storage or genesis file",
            where=str(home.data),
            remedy=_USE_CONTEXT,
        )
    return candidates[0]


def _unreachable(home: NodeHome, context: EpochContext) -> SourceError | None:
    failure: SourceError | None = None
    for shard in context.shards:
        assert shard.flat_head_target is not None, "a context out of a node's blocks names each shard's block"
        failure = _location_failure(home, shard.shard_uid, shard.flat_head_target)
        if failure is None:
            return None
    return failure


def _location_failure(home: NodeHome, shard_uid: ShardUId, target: CryptoHash) -> SourceError | None:
    try:
        locate_flat_state(home, shard_uid, target)
    except SourceError as error:
        return error
    return None
