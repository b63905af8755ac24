"""Flat state out of a nearcore node's own database, read-only.

Records come from a state snapshot or the hot store, rolled forward where needed; referenced values and the root node from the State
column, headers from StateHeaders. Everything that has a hash is checked by it. No row is ever written.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.near.node.flat_state_location import FlatStateLocation, locate_flat_state
from pipelines.near.node.flat_state_rows import decode_rows, scan_rows
from pipelines.near.node.flat_state_source import FoundStateHeader, KeyRange
from pipelines.near.node.key_split import ExistingKeys, split_keys
from pipelines.near.node.node_columns import FLAT_STATE
from pipelines.near.node.node_home import IDENTITY_BYTES_MAX, NodeHome, read_node_home
from pipelines.near.node.node_state_header import find_node_state_header, open_state_header
from pipelines.near.node.read_limit import keep_read_limit, process_read_limit
from pipelines.near.node.rocksdb_reader import READAHEAD_BYTES, Row, table_files
from pipelines.near.node.state_column import StateColumnPlace
from pipelines.near.node.value_rows import read_column_value, read_column_values
from pipelines.near.record_batches import bounded
from pipelines.stores.pace import Pace
from pipelines.stores.regular_file import read_regular
from schemas.arrow_arrays import numbers_of
from schemas.dataset.flat_state import RECORD_SCHEMA
from schemas.errors import ColumnMissingError, InvalidInputError
from schemas.ids import ZERO_HASH, CryptoHash
from schemas.nearcore.epoch_context import EpochContext, ShardContext
from schemas.nearcore.flat_state_limits import INLINED_VALUE_BYTES_MAX, KEY_BYTES_MAX

_NODE_MEMORY_USAGE_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class NodeSource:
    """A node's flat state as a `FlatStateSource`."""

    node_home: str
    context: EpochContext
    read_limit_bytes_per_s: int | None = None
    """Bytes of keys and values that each process reads a second at most; None for no limit."""
    on_node_disk: bool = True

    def describe(self) -> str:
        """Return what is read, for people."""
        return f"node at {self.node_home}, epoch {self.context.epoch_height} of {self.context.chain_id}"

    def fingerprint(self, shard: ShardContext) -> str:
        """Return a text that changes when the records could.

        What a chain's block leaves behind never changes, so of a running node's hot store only the database's identity counts; a
        snapshot's files stand still, so they count as well.

        Raises:
            SourceError: as `key_ranges`.
        """
        location = self._locate(shard)
        digest = hashlib.sha256(f"{shard.shard_uid} {_target(shard)} {shard.state_root}".encode())
        for file in sorted(location.folder.iterdir()):
            if file.name == "IDENTITY":
                digest.update(read_regular(file, IDENTITY_BYTES_MAX))
            elif location.is_snapshot and file.suffix in (".sst", ".log") and (stat := file.stat()).st_size:
                digest.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return f"node-{digest.hexdigest()[:32]}"

    def key_ranges(self, shard: ShardContext, range_bytes_target: int) -> tuple[KeyRange, ...]:
        """Split a shard by its SST files.

        Raises:
            SourceError: a column is missing, the flat storage is not ready or stands at the wrong block.
        """
        location = self._locate(shard)
        prefix = shard.shard_uid.to_bytes()
        first_key = location.reader.first_key(FLAT_STATE, prefix)
        last_key = location.reader.last_key(FLAT_STATE, _after(prefix))
        if first_key is None or last_key is None or not first_key.startswith(prefix) or not last_key.startswith(prefix):
            return (KeyRange(b"", None),)
        files = table_files(location.folder, FLAT_STATE)
        keys = ExistingKeys(partial(location.reader.first_key, FLAT_STATE), partial(location.reader.last_key, FLAT_STATE))
        cuts = split_keys(files, first_key, last_key, range_bytes_target, keys)
        begins = [b"", *(cut[len(prefix) :] for cut in cuts)]
        return tuple(KeyRange(begin, end) for begin, end in zip(begins, [*begins[1:], None], strict=True))

    def records(self, shard: ShardContext, key_range: KeyRange, record_batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
        """Yield the records of a key range at the wanted block.

        Raises:
            SourceError: as `key_ranges`, or a file is damaged.
            IntegrityError: a row can't be decoded.
            ValueMismatchError: a short value that the node keeps by reference only is missing.
        """
        for batch in self._rows(shard, key_range, record_batch_bytes_max, with_values=True):
            yield from self._with_short_values(batch, shard, record_batch_bytes_max)

    def shapes(self, shard: ShardContext, key_range: KeyRange, record_batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
        """Yield keys and value lengths of a key range at the wanted block; see `ShapeSource`.

        Raises:
            SourceError, IntegrityError: as `records`.
        """
        return self._rows(shard, key_range, record_batch_bytes_max, with_values=False)

    def values(self, shard: ShardContext, value_hashes: Sequence[bytes], record_batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
        """Yield referenced values from the State column, in the order asked for.

        Raises:
            ValueMismatchError: a value is missing or does not hash.
            ColumnMissingError, SourceError: the State column can't be read.
        """
        return read_column_values(self.state_column(shard).open(), value_hashes, record_batch_bytes_max)

    def state_header(self, shard: ShardContext, sync_hash: bytes) -> FoundStateHeader:
        """Return the shard's verified header: the StateHeaders row, else one computed; else say why there is none.

        Raises:
            SourceError: the database can't be opened.
        """
        return find_node_state_header(self.node_home, self.context.chain_id, shard.shard_uid, CryptoHash(sync_hash))

    def verify_state_header(self, shard: ShardContext, sync_hash: bytes, header: bytes) -> None:
        """Verify all of a header, as `NodeStateHeader.verify`.

        Raises:
            InvalidInputError: the native wheel is not installed.
            SourceError: the node lacks a row, or the database can't be read.
            IntegrityError: it is not the header of this shard at this block.
        """
        with open_state_header(self.node_home, self.context.chain_id, shard.shard_uid, CryptoHash(sync_hash)) as state_header:
            state_header.verify(header)

    def root_memory_usage(self, shard: ShardContext) -> int | None:
        """Return the memory usage in the state root's node; None when the node does not have that node, or no root is given.

        Raises:
            SourceError: the database can't be read.
        """
        if shard.state_root is None:
            return None
        if shard.state_root == ZERO_HASH:
            return 0
        try:
            node = self.state_column(shard).open().read([shard.state_root])[0]
        except ColumnMissingError:
            return None
        return None if node is None else int.from_bytes(node[-_NODE_MEMORY_USAGE_BYTES:], "little")

    def state_column(self, shard: ShardContext) -> StateColumnPlace:
        """Say where the shard's trie nodes are."""
        return StateColumnPlace(self.node_home, shard.shard_uid, self.read_limit_bytes_per_s)

    def _home(self) -> NodeHome:
        return read_node_home(Path(self.node_home))

    def _locate(self, shard: ShardContext) -> FlatStateLocation:
        return locate_flat_state(self._home(), shard.shard_uid, _target(shard))

    def _rows(
        self, shard: ShardContext, key_range: KeyRange, record_batch_bytes_max: int, *, with_values: bool
    ) -> Iterator[pa.RecordBatch]:
        location = self._locate(shard)
        prefix = shard.shard_uid.to_bytes()
        begin = prefix + key_range.begin
        end = _after(prefix) if key_range.end is None else prefix + key_range.end
        where = f"FlatState of shard {shard.shard_uid}, {location.folder}"
        # A caller that wants little at once wants little in all: a few rows around a key.
        readahead_bytes = min(READAHEAD_BYTES, record_batch_bytes_max)
        changes = {prefix + key: row for key, row in location.changes(shard.shard_uid).items() if begin <= prefix + key < end}
        if not changes and self.read_limit_bytes_per_s is None:
            return scan_rows(
                location.reader,
                begin,
                end,
                prefix_bytes=len(prefix),
                record_batch_bytes_max=record_batch_bytes_max,
                where=where,
                readahead_bytes=readahead_bytes,
                with_values=with_values,
            )
        steps = _apply_changes(location.reader.scan(FLAT_STATE, begin, end, readahead_bytes), changes)
        if self.read_limit_bytes_per_s is not None:
            steps = _slowed(steps, process_read_limit(self.read_limit_bytes_per_s))
        return decode_rows(steps, len(prefix), record_batch_bytes_max, where, with_values=with_values)

    def _with_short_values(self, batch: pa.RecordBatch, shard: ShardContext, record_batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
        """Look up values that are short enough to be inlined but are kept by reference, as nodes of before the inlining did."""
        is_short = numbers_of(batch["value_length"]) <= INLINED_VALUE_BYTES_MAX
        if not batch["value"].null_count or not np.any(is_short & _nulls(batch["value"])):
            yield batch
            return
        values = batch["value"].to_pylist()
        hashes = batch["value_hash"].to_pylist()
        column = self.state_column(shard).open()
        for index, length in enumerate(batch["value_length"].to_pylist()):
            if values[index] is None and length <= INLINED_VALUE_BYTES_MAX:
                values[index] = read_column_value(column, hashes[index])
                hashes[index] = None
        columns = [batch["key"], pa.array(values, pa.binary()), batch["value_length"], pa.array(hashes, pa.binary(32))]
        yield from bounded([pa.RecordBatch.from_arrays(columns, schema=RECORD_SCHEMA)], record_batch_bytes_max)


def _nulls(column: pa.Array) -> npt.NDArray[np.bool_]:
    """Return which rows are null."""
    return numbers_of(column.is_null().cast(pa.uint8())).astype(bool)


def _slowed(steps: Iterable[list[Row]], limit: Pace) -> Iterator[list[Row]]:
    for step in steps:
        keep_read_limit(limit, sum(len(key) + len(row) for key, row in step))
        yield step


def _target(shard: ShardContext) -> CryptoHash:
    if shard.flat_head_target is None:
        raise InvalidInputError(
            problem=f"the epoch context does not say at which block the flat state of shard {shard.shard_uid} must stand",
            remedy="Add prev_block_hash to the context, or let it be read from the node's database.",
        )
    return shard.flat_head_target


def _after(prefix: bytes) -> bytes:
    """Return a key above all keys with a prefix and below all with a later one; no trie key is made of so many bytes 0xff."""
    return prefix + b"\xff" * (KEY_BYTES_MAX + 1)


def _apply_changes(steps: Iterable[list[Row]], changes: dict[bytes, bytes | None]) -> Iterator[list[Row]]:
    """Merge changes into ascending rows: an inserted or changed key gets the new row, a deleted one is left out."""
    changed = sorted(changes)
    done = 0
    for step in steps:
        upto = bisect.bisect_right(changed, step[-1][0], done)
        if upto == done:
            yield step
            continue
        rows: dict[bytes, bytes | None] = dict(step)
        rows.update((key, changes[key]) for key in changed[done:upto])
        done = upto
        if kept := [(key, row) for key, row in sorted(rows.items()) if row is not None]:
            yield kept
    if rest := [(key, row) for key in changed[done:] if (row := changes[key]) is not None]:
        yield rest
