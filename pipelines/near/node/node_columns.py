"""Names of the column families of a nearcore database that statecast reads.

Source: nearcore core/store/src/db/rocksdb.rs, col_name: the columns of the first versions keep their numbers, later ones carry the
name of their DBCol variant.
"""

from __future__ import annotations

from typing import Final

BLOCK_MISC: Final = "col1"
BLOCK: Final = "col2"
BLOCK_HEADER: Final = "col3"
BLOCK_HEIGHT: Final = "col4"
STATE: Final = "col5"
CHUNK_EXTRA: Final = "col6"
INCOMING_RECEIPTS: Final = "col9"
EPOCH_INFO: Final = "col11"
CHUNKS: Final = "col13"
STATE_HEADERS: Final = "col18"
EPOCH_START: Final = "col23"
STATE_CHANGES: Final = "col35"
FLAT_STATE: Final = "FlatState"
FLAT_STATE_CHANGES: Final = "FlatStateChanges"
FLAT_STATE_DELTA_METADATA: Final = "FlatStateDeltaMetadata"
FLAT_STORAGE_STATUS: Final = "FlatStorageStatus"
STATE_SHARD_UID_MAPPING: Final = "StateShardUIdMapping"
STATE_SYNC_HASHES: Final = "StateSyncHashes"

STATE_SNAPSHOT_KEY: Final = b"STATE_SNAPSHOT_KEY"
"""Row of BlockMisc with the block hash that the complete state snapshot is named by. Source: nearcore core/store/src/db.rs."""

_NUMBERED_NAMES = {
    BLOCK_MISC: "BlockMisc",
    BLOCK: "Block",
    BLOCK_HEADER: "BlockHeader",
    BLOCK_HEIGHT: "BlockHeight",
    STATE: "State",
    CHUNK_EXTRA: "ChunkExtra",
    INCOMING_RECEIPTS: "IncomingReceipts",
    EPOCH_INFO: "EpochInfo",
    CHUNKS: "Chunks",
    EPOCH_START: "EpochStart",
    STATE_CHANGES: "StateChanges",
    STATE_HEADERS: "StateHeaders",
}


def display_name(column: str) -> str:
    """Return a column family as people know it: ``State (col5)``."""
    return f"{_NUMBERED_NAMES[column]} ({column})" if column in _NUMBERED_NAMES else column
