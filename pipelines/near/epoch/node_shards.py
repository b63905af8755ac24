"""Shard uids and parents of shards out of a node's home: a block's chunk headers have neither.

The version that makes a shard id a shard uid comes from the node's ChunkExtra of the block, by the epoch's layout where
EpochInfo holds one (V5), by the flat storage, or by an epoch configuration or the genesis file.

The shard layout is the epoch's own, or that of such a file where it has the epoch's shards; elsewhere a database has none.

The parent of a shard comes from such a layout; else from StateShardUIdMapping, which names the shard under whose prefix a split shard's
State rows lie. That is the parent, unless the parent was itself born by a split and lay under its own parent's prefix: where another
shard of that prefix is no longer in the epoch, the parent can't be told and none is named.

Source: nearcore chain/chain/src/resharding/manager.rs, set_state_shard_uid_mapping; resharding/trie_state_resharder.rs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from pipelines.near.epoch.chain_rows import ChainRows
from pipelines.near.node.configured_layouts import configured_layout
from pipelines.near.node.flat_state_location import FLAT_COLUMNS, locate_flat_state
from pipelines.near.node.genesis_head import read_genesis_fields
from pipelines.near.node.node_columns import CHUNK_EXTRA, FLAT_STORAGE_STATUS, STATE_SHARD_UID_MAPPING
from pipelines.near.node.node_home import NodeHome
from pipelines.near.node.rocksdb_reader import cached_reader
from schemas.errors import EpochNotReadyError, SourceError
from schemas.ids import HASH_BYTES, CryptoHash, ShardUId
from schemas.nearcore.block import ChunkHeader
from schemas.nearcore.epoch_context import EpochContext
from schemas.nearcore.flat_storage import decode_flat_storage_status
from schemas.nearcore.shard_layout import ShardLayout, shard_layout_from_json

USE_CONTEXT: Final = "Give the epoch as a file with --context, or name a JSON-RPC endpoint with --rpc."

_SHARD_UID_BYTES: Final = 8

Layouts = tuple[ShardLayout | None, ShardLayout | None]
"""The epoch's own layout, and that of an epoch configuration or the genesis file (`pipelines.near.node.configured_layouts`)."""


def genesis_head(home: NodeHome, protocol_version: int) -> tuple[str, ShardLayout | None]:
    """Return the chain id, and the shard layout that the genesis file or an epoch configuration has for a protocol version.

    Raises:
        SourceError: it is not there, or can't be read.
    """
    if home.genesis_file is None:
        raise SourceError(
            problem="config.json names no genesis_file, which alone has the chain id",
            where=str(home.home / "config.json"),
            remedy=USE_CONTEXT,
        )
    chain_id = read_genesis_fields(home.genesis_file, ("chain_id",)).get("chain_id")
    if not isinstance(chain_id, str):
        raise SourceError(problem="the genesis file has no chain_id", where=str(home.genesis_file), remedy=USE_CONTEXT)
    layout = configured_layout(home, protocol_version)
    return chain_id, None if layout is None else shard_layout_from_json(layout, str(home.genesis_file))


def find_shard_uids(home: NodeHome, reader: ChainRows, chunks: Sequence[ChunkHeader], layouts: Layouts) -> tuple[ShardUId, ...]:
    """Return the shard uid of each chunk, in their order.

    A layout has one version: that of a shard that the node tracks is also that of those it does not.

    Raises:
        EpochNotReadyError: their version can't be told.
        SourceError, IntegrityError: the database can't be read.
    """
    epoch_layout, configured = layouts
    shard_ids = {chunk.shard_id for chunk in chunks}
    versions = {uid.version for chunk in chunks if (uid := _recorded_shard_uid(reader, chunk)) is not None}
    if not versions and epoch_layout is not None and shard_ids <= set(epoch_layout.shard_ids):
        versions = {epoch_layout.version}
    if not versions:
        statuses = _status_shard_uids(home)
        stored = (_stored_shard_uid(home, chunk, statuses.get(chunk.shard_id, [])) for chunk in chunks)
        versions = {uid.version for uid in stored if uid is not None}
    if not versions and configured is not None and shard_ids <= set(configured.shard_ids):
        versions = {configured.version}
    if len(versions) != 1:
        raise EpochNotReadyError(
            problem=f"the version of shards {sorted(shard_ids)} can't be told from what the node keeps of them, or from its genesis file",
            where=str(home.data),
            remedy=USE_CONTEXT,
        )
    (version,) = versions
    return tuple(ShardUId(version=version, shard_id=chunk.shard_id) for chunk in chunks)


def find_parents(reader: ChainRows, shard_uids: Sequence[ShardUId], layouts: Layouts) -> dict[ShardUId, ShardUId]:
    """Return the parents of an epoch's shards, by child, as far as they are known.

    Args:
        shard_uids: all shards of the epoch.
    Raises:
        SourceError: the database can't be read.
    """
    found = _mapped_parents(reader, shard_uids)
    # The epoch's own layout says it best, so it is asked last.
    for layout in (layout for layout in reversed(layouts) if layout is not None):
        for shard_uid in set(shard_uids) & set(layout.shard_uids):
            parent = layout.parent_of(shard_uid.shard_id)
            if parent is not None:
                found[shard_uid] = parent
    return found


def choose_shard_layout(shard_uids: Sequence[ShardUId], layouts: Layouts) -> ShardLayout | None:
    """Return the one of the layouts that has exactly an epoch's shards, without parents; None where none is the epoch's.

    Equal shard uids make equal layouts: a resharding gives all shards another version (V1) or the new ones new ids.

    Args:
        shard_uids: all shards of the epoch.
    """
    found = next((layout for layout in layouts if layout is not None and set(layout.shard_uids) == set(shard_uids)), None)
    return None if found is None else found.assignment


def with_mapped_parents(context: EpochContext, reader: ChainRows) -> EpochContext:
    """Return a context with the parents that StateShardUIdMapping tells, where the context names none.

    Raises:
        SourceError: the database can't be read.
    """
    parents = _mapped_parents(reader, [shard.shard_uid for shard in context.shards])
    return replace(
        context,
        shards=tuple(replace(shard, parent_shard_uid=shard.parent_shard_uid or parents.get(shard.shard_uid)) for shard in context.shards),
    )


def location_failure(home: NodeHome, shard_uid: ShardUId, target: CryptoHash) -> SourceError | None:
    """Return why flat state of a shard can't be brought to a block; None when it can."""
    try:
        locate_flat_state(home, shard_uid, target)
    except SourceError as error:
        return error
    return None


def _mapped_parents(reader: ChainRows, shard_uids: Iterable[ShardUId]) -> dict[ShardUId, ShardUId]:
    origins = _mapping(reader)
    epoch = set(shard_uids)
    hidden = {origin for shard_uid, origin in origins.items() if shard_uid not in epoch}
    return {uid: origin for uid in epoch if (origin := origins.get(uid)) is not None and origin not in hidden}


def _mapping(reader: ChainRows) -> dict[ShardUId, ShardUId]:
    """Return by split shard the one whose prefix its State rows use; nothing where the database has no such column family."""
    if STATE_SHARD_UID_MAPPING not in reader.columns:
        return {}
    return {
        ShardUId.from_bytes(key): ShardUId.from_bytes(row)
        for rows in reader.scan(STATE_SHARD_UID_MAPPING, b"", None)
        for key, row in rows
        if len(key) == len(row) == _SHARD_UID_BYTES and key != row
    }


def _recorded_shard_uid(reader: ChainRows, chunk: ChunkHeader) -> ShardUId | None:
    """Find the shard uid under which the node keeps what applying the block before left: the one that the shard had then.

    Source: nearcore core/primitives/src/types.rs, ChunkExtra: a tag and the state root come first.
    """
    found = [
        ShardUId.from_bytes(key[HASH_BYTES:])
        for rows in reader.scan(CHUNK_EXTRA, chunk.prev_block_hash, chunk.prev_block_hash + b"\xff" * 9)
        for key, row in rows
        if len(key) == HASH_BYTES + _SHARD_UID_BYTES and row[1 : 1 + HASH_BYTES] == chunk.prev_state_root
    ]
    found = [shard_uid for shard_uid in found if shard_uid.shard_id == chunk.shard_id]
    return found[0] if len(found) == 1 else None


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


def _stored_shard_uid(home: NodeHome, chunk: ChunkHeader, stored: list[ShardUId]) -> ShardUId | None:
    """Choose among the shard uids of flat storage; of several, the one whose flat state can be brought to the chunk's block."""
    candidates = stored
    if len(candidates) > 1:
        candidates = [uid for uid in candidates if location_failure(home, uid, chunk.prev_block_hash) is None]
    return candidates[0] if len(candidates) == 1 else None
