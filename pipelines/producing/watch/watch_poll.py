"""A cheap look at a node: which epochs it has a sync hash of, and which state snapshot it calls complete.

nearcore removes the old snapshot and its record, makes the new one (a RocksDB checkpoint in a folder named by a block's hash), moves the
flat head of each shard in it, and then records that hash in BlockMisc. So the record says that a snapshot is complete; a folder without
it is one in the making, or was left by a node that died.

Source: nearcore core/store/src/trie/state_snapshot.rs, ShardTries::make_state_snapshot; core/store/src/db.rs, STATE_SNAPSHOT_KEY.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pipelines.near.epoch.node_epochs import NodeEpoch, UnreadableEpoch, list_recorded_epochs
from pipelines.near.epoch.sync_block import snapshot_block_of
from pipelines.near.node.genesis_head import read_genesis_fields
from pipelines.near.node.node_columns import BLOCK_HEADER, BLOCK_MISC, EPOCH_INFO, STATE_SNAPSHOT_KEY, STATE_SYNC_HASHES
from pipelines.near.node.node_home import read_node_home
from pipelines.near.node.rocksdb_reader import RocksDbReader
from schemas.errors import SourceError
from schemas.ids import HASH_BYTES, CryptoHash
from schemas.nearcore.epoch_context import CHAIN_ID_PATTERN


@dataclass(frozen=True, slots=True)
class NodeView:
    """What one look at a node shows."""

    epochs: tuple[NodeEpoch, ...]
    """Those with a recorded sync hash, ascending by height."""
    complete_snapshot: CryptoHash | None
    """Block hash of the snapshot that the node calls complete."""
    has_snapshot_folder: bool
    """Whether there is a folder of some snapshot, complete or not."""
    unreadable: tuple[UnreadableEpoch, ...] = ()
    """Those with a recorded sync hash whose EpochInfo can't be decoded."""


def look_at_node(node_home: str | Path) -> NodeView:
    """Open three column families, read a few rows and close them.

    Raises:
        SourceError: the database can't be read.
    """
    home = read_node_home(node_home)
    with RocksDbReader(home.data, (BLOCK_MISC, EPOCH_INFO, STATE_SYNC_HASHES)) as reader:
        listing = list_recorded_epochs(reader)
        recorded = reader.get(BLOCK_MISC, STATE_SNAPSHOT_KEY)
    snapshot = CryptoHash(recorded) if recorded is not None and len(recorded) == HASH_BYTES else None
    try:
        has_folder = any(entry.is_dir() for entry in home.snapshots.iterdir())
    except OSError:
        has_folder = False
    return NodeView(listing.epochs, snapshot, has_folder, listing.unreadable)


def snapshot_block(node_home: str | Path, sync_hash: CryptoHash) -> CryptoHash | None:
    """Return the hash that the snapshot for a sync hash is named by; None when the node lacks a header that tells.

    Raises:
        SourceError, IntegrityError: the database can't be read.
    """
    home = read_node_home(node_home)
    with RocksDbReader(home.data, (BLOCK_HEADER,)) as reader:
        return snapshot_block_of(reader, sync_hash)


def read_chain_id(node_home: str | Path) -> str:
    """Return the chain id, which the genesis file alone has.

    Raises:
        SourceError: the home or the genesis file can't be read, or has none.
    """
    home = read_node_home(node_home)
    fields = {} if home.genesis_file is None else read_genesis_fields(home.genesis_file, ("chain_id",))
    chain_id = fields.get("chain_id")
    if not isinstance(chain_id, str) or re.fullmatch(CHAIN_ID_PATTERN, chain_id) is None:
        raise SourceError(problem="no genesis file says the chain id", where=str(home.genesis_file or home.home / "config.json"))
    return chain_id
