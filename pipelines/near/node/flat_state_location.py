"""Which flat state of a node to read for a shard: that of a state snapshot, or the hot store's.

A flat state stands at its flat head. It can be rolled forward, block by block, by the deltas that lie after the head, and never back.
Chosen is one from whose head the wanted block can be reached; a state snapshot before the hot store, since it stands still.

Source: nearcore core/store/src/flat/storage.rs, FlatStorageInner::get_blocks_to_head; core/store/src/trie/state_snapshot.rs.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipelines.near.node.node_columns import FLAT_STATE, FLAT_STATE_CHANGES, FLAT_STATE_DELTA_METADATA, FLAT_STORAGE_STATUS
from pipelines.near.node.node_home import NodeHome
from pipelines.near.node.rocksdb_reader import RocksDbReader, cached_reader
from schemas.errors import (
    FlatStorageNotReadyError,
    SnapshotMismatchError,
    SnapshotNotFoundError,
    SourceError,
)
from schemas.ids import CryptoHash, ShardUId
from schemas.nearcore.flat_storage import (
    STATUS_NAMES,
    FlatBlock,
    decode_flat_state_changes,
    decode_flat_state_delta_metadata,
    decode_flat_storage_status,
)

FLAT_COLUMNS: Final = (FLAT_STATE, FLAT_STATE_CHANGES, FLAT_STATE_DELTA_METADATA, FLAT_STORAGE_STATUS)
"""Column families of a database that are read for flat state; a state snapshot has them all."""

DELTA_BLOCKS_MAX: Final = 4096
"""Most blocks that a flat state is rolled forward by."""

SNAPSHOTS_MAX: Final = 64
"""Most state snapshots that are looked at; a node keeps one."""

_NONE: Final = (STATUS_NAMES[0], STATUS_NAMES[1])
"""Statuses of a shard without flat storage: Disabled and Empty."""


@dataclass(frozen=True, slots=True)
class FlatStateLocation:
    """A shard's flat state and how to get it to the wanted block."""

    folder: Path
    is_snapshot: bool
    flat_head: FlatBlock
    delta_blocks: tuple[CryptoHash, ...]
    """Blocks whose changes are applied, oldest first; empty when the head is the wanted block."""
    reader: RocksDbReader
    """The view of the database in which all this holds."""

    def changes(self, shard_uid: ShardUId) -> dict[bytes, bytes | None]:
        """Return the changes from the flat head to the wanted block: FlatStateValue bytes by trie key, None for a deleted key.

        Raises:
            SnapshotMismatchError: the changes of a block are missing.
            IntegrityError: a row can't be decoded.
        """
        merged: dict[bytes, bytes | None] = {}
        for block_hash in self.delta_blocks:
            where = f"FlatStateChanges of block {block_hash}, shard {shard_uid}, {self.folder}"
            row = self.reader.get(FLAT_STATE_CHANGES, shard_uid.to_bytes() + block_hash)
            if row is None:
                raise SnapshotMismatchError(
                    problem=f"the flat state at block {self.flat_head.hash} can't be rolled forward: the changes of block {block_hash} are missing",
                    where=where,
                )
            merged.update(decode_flat_state_changes(row, where))
        return merged


def locate_flat_state(home: NodeHome, shard_uid: ShardUId, target: CryptoHash) -> FlatStateLocation:
    """Choose the flat state to read.

    Args:
        target: the block whose post-state is wanted.
    Raises:
        SnapshotMismatchError: there is flat state, but the target can't be reached from where it stands.
        FlatStorageNotReadyError: the shard's flat storage is not Ready.
        SnapshotNotFoundError: no flat state of this shard anywhere.
        ColumnMissingError, SourceError: a database can't be read.
        IntegrityError: a row can't be decoded.
    """
    failures: list[SourceError] = []
    for folder in _snapshot_folders(home):
        try:
            return _location(cached_reader(folder, FLAT_COLUMNS), shard_uid, target, is_snapshot=True)
        except SourceError as error:
            failures.append(error)
    try:
        return _location(cached_reader(home.data, FLAT_COLUMNS), shard_uid, target, is_snapshot=False)
    except SnapshotMismatchError:
        # The open view may be older than the target.
        try:
            return _location(cached_reader(home.data, FLAT_COLUMNS, reopen=True), shard_uid, target, is_snapshot=False)
        except SourceError as error:
            failures.append(error)
    except SourceError as error:
        failures.append(error)
    raise _failure(failures, shard_uid, target)


def has_flat_storage(home: NodeHome, shard_uid: ShardUId) -> bool:
    """Return whether a node's hot store or a snapshot has flat storage of a shard, ready or in the making.

    Raises:
        IntegrityError: a row can't be decoded.
    """
    for folder in (*_snapshot_folders(home), home.data):
        # A snapshot may be gone by now or unfinished, and a hot store be of before flat storage.
        with contextlib.suppress(SourceError):
            row = cached_reader(folder, FLAT_COLUMNS).get(FLAT_STORAGE_STATUS, shard_uid.to_bytes())
            if row is not None and decode_flat_storage_status(row, f"FlatStorageStatus of shard {shard_uid}, {folder}").name not in _NONE:
                return True
    return False


def _snapshot_folders(home: NodeHome) -> list[Path]:
    try:
        found = sorted(entry / "data" for entry in home.snapshots.iterdir() if entry.is_dir())
    except OSError:
        return []
    return found[:SNAPSHOTS_MAX]


def _location(reader: RocksDbReader, shard_uid: ShardUId, target: CryptoHash, *, is_snapshot: bool) -> FlatStateLocation:
    where = f"FlatStorageStatus of shard {shard_uid}, {reader.folder}"
    row = reader.get(FLAT_STORAGE_STATUS, shard_uid.to_bytes())
    if row is None:
        raise SnapshotNotFoundError(problem=f"there is no flat state of shard {shard_uid}", where=where)
    status = decode_flat_storage_status(row, where)
    if status.flat_head is None:
        raise FlatStorageNotReadyError(
            problem=f"the flat storage of shard {shard_uid} is {status.name}, not Ready",
            where=where,
            remedy="Wait until the node has built it.",
        )
    blocks = _delta_blocks(reader, shard_uid, status.flat_head, target)
    return FlatStateLocation(reader.folder, is_snapshot, status.flat_head, blocks, reader)


def _delta_blocks(reader: RocksDbReader, shard_uid: ShardUId, flat_head: FlatBlock, target: CryptoHash) -> tuple[CryptoHash, ...]:
    blocks: list[CryptoHash] = []
    block_hash = target
    for _ in range(DELTA_BLOCKS_MAX):
        if block_hash == flat_head.hash:
            return tuple(reversed(blocks))
        where = f"FlatStateDeltaMetadata of block {block_hash}, shard {shard_uid}, {reader.folder}"
        row = reader.get(FLAT_STATE_DELTA_METADATA, shard_uid.to_bytes() + block_hash)
        metadata = None if row is None else decode_flat_state_delta_metadata(row, where)
        if metadata is None or metadata.block.height <= flat_head.height:
            break
        if metadata.prev_block_with_changes is None:
            blocks.append(block_hash)
            block_hash = metadata.block.prev_hash
        else:
            previous_hash, previous_height = metadata.prev_block_with_changes
            block_hash = previous_hash if previous_height > flat_head.height else flat_head.hash
    raise SnapshotMismatchError(
        problem=f"the flat state of shard {shard_uid} stands at block {flat_head.hash} (height {flat_head.height}), "
        f"from which block {target} can't be reached",
        where=str(reader.folder),
    )


def _failure(failures: list[SourceError], shard_uid: ShardUId, target: CryptoHash) -> SourceError:
    """Return the failure that says most, with all of them in its text."""
    if len(failures) == 1:
        return failures[0]
    # A place that has no flat state of the shard at all explains nothing while another one has.
    telling = [failure for failure in failures if not isinstance(failure, SnapshotNotFoundError)] or failures
    # The first is the snapshot's: the place that is read as a rule.
    listed = "; ".join(f"{failure.where or 'node'}: {failure.problem}" for failure in failures)
    return type(telling[0])(
        problem=f"no flat state of shard {shard_uid} can be brought to block {target}: {listed}",
        where=telling[0].where,
        remedy=telling[0].remedy
        or "Give the epoch of the node's snapshot, take a node whose snapshot is of the wanted epoch, or name with --shard-id the shards "
        "that this node has of it.",
    )
