"""A node's home with a made-up state of a named size: a database as nearcore lays it out, and its epoch context.

    python -m benchmarks.synthetic_state --records 1000000 --folder state
    python -m benchmarks.synthetic_state --records 20000000 --shards 8 --folder state

Flat state is written as sorted table files that the database takes in whole, so a hundred million records need no more memory than
a thousand. The state roots are not known in advance: they are null in the context, and a run computes them. A state of several shards
that was stopped goes on with the shard that it was at.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Final

from rocksdict import BlockBasedOptions, DBCompressionType, IngestExternalFileOptions, Options, Rdict, SstFileWriter, WriteOptions

from benchmarks.synthetic_records import RECORDS_MAX, RECORDS_MIN, synthetic_records
from pipelines.near.node.node_columns import (
    BLOCK_MISC,
    FLAT_STATE,
    FLAT_STATE_CHANGES,
    FLAT_STATE_DELTA_METADATA,
    FLAT_STORAGE_STATUS,
    STATE,
    STATE_SHARD_UID_MAPPING,
)
from schemas.dataset.flat_state_value import encode_inlined, encode_ref
from schemas.ids import CryptoHash, ShardUId
from schemas.nearcore.epoch_context import EpochContext, ShardContext, parse_epoch_context
from schemas.nearcore.flat_state_limits import INLINED_VALUE_BYTES_MAX
from schemas.nearcore.flat_storage import FlatBlock, encode_ready_status

TABLE_ROWS: Final = 1 << 14
"""Rows between two looks at a table file's size."""

TABLE_BYTES_TARGET: Final = 64 << 20
"""Size of a table file, about: nearcore's own target."""

SHARD_VERSION: Final = 3
SHARD_UID: Final = ShardUId(SHARD_VERSION, shard_id=0)
SHARDS_MAX: Final = 64

RECORDS_PER_SHARD_MIN: Final = 2 * RECORDS_MIN
"""In the mean: the smallest shard still has ``RECORDS_MIN``."""

LARGEST_SHARDS_MAX: Final = 8
"""Up to so many shards the largest has a quarter of the records; of more it has twice its share."""

SHARD_SEED_STEP: Final = 1_000_003
"""Between the seeds of two shards: each has records of its own."""

SEED_DEFAULT: Final = 1
RECORDS_DEFAULT: Final = 1_000_000

_FORMAT: Final = 1
"""Raised when the same seed and number would make another state, so that an old one is not reused."""

Row = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class SyntheticState:
    """A made-up node's home."""

    home: Path
    context: EpochContext
    records: int


def synthetic_state(folder: Path, records: int, seed: int = SEED_DEFAULT, shards: int = 1) -> SyntheticState:
    """Make the state, go on with one that was stopped, or find it made.

    Args:
        folder: where states are kept, one folder each.
        records: from ``RECORDS_MIN`` to ``RECORDS_MAX``, of all shards together; each has at least ``RECORDS_MIN``.
        shards: how many shards share the records, see `shard_records`.
    """
    found = find_state(folder, records, seed, shards)
    if found is not None:
        return found
    home = _home(folder, records, seed, shards)
    _write_database(home / "data", records, seed, shards)
    context = _context(records, seed, shards)
    (home / "context.json").write_text(json.dumps(context.to_json(), indent=1))
    return SyntheticState(home, context, records)


def find_state(folder: Path, records: int, seed: int, shards: int) -> SyntheticState | None:
    """Return a state that was made before; None where it was not, or not to its end."""
    home = _home(folder, records, seed, shards)
    # The context is written last: without it the home is of a run that was stopped.
    file = home / "context.json"
    return SyntheticState(home, parse_epoch_context(file.read_bytes(), str(file)), records) if file.exists() else None


def _home(folder: Path, records: int, seed: int, shards: int) -> Path:
    return folder / (f"state-{_FORMAT}-{records}-{seed}" + (f"-{shards}" if shards > 1 else ""))


def shard_records(records: int, shards: int) -> tuple[int, ...]:
    """Return each shard's number of records, by shard id: the last shard has about a quarter, the others ever fewer from the first on.

    Of fewer than five shards the last one has a quarter more than its share.
    """
    assert 1 <= shards <= SHARDS_MAX, f"a synthetic state has 1 to {SHARDS_MAX} shards"
    if shards == 1:
        return (records,)
    largest = max(records // 4, records * 5 // (4 * shards)) if shards <= LARGEST_SHARDS_MAX else 2 * records // shards
    weights = [2 * shards - index for index in range(shards - 1)]
    others = [(records - largest) * weight // sum(weights) for weight in weights]
    counts = (*others, records - sum(others))
    assert min(counts) >= RECORDS_MIN, f"{records} records are too few for {shards} shards"
    return counts


def _block_hash(records: int, seed: int, name: str) -> CryptoHash:
    return CryptoHash(hashlib.sha256(f"synthetic state of {records} records, seed {seed}: {name}".encode()).digest())


def _context(records: int, seed: int, shards: int) -> EpochContext:
    flat_head = _block_hash(records, seed, "flat head")
    return EpochContext(
        chain_id="synthetic",
        epoch_height=1,
        epoch_id=_block_hash(records, seed, "epoch"),
        sync_hash=_block_hash(records, seed, "sync block"),
        protocol_version=82,
        shards=tuple(ShardContext(_shard_uid(index), state_root=None, flat_head_target=flat_head) for index in range(shards)),
    )


def _shard_uid(shard_id: int) -> ShardUId:
    return ShardUId(SHARD_VERSION, shard_id)


def node_options() -> Options:
    """Return options near nearcore's for the bottommost level, where nearly all of a node's rows are."""
    options = Options(raw_mode=True)
    options.set_compression_type(DBCompressionType.zstd())
    table = BlockBasedOptions()
    table.set_block_size(16 << 10)
    # Without one a look-up reads a block of every file that may hold the key.
    table.set_bloom_filter(10, False)
    options.set_block_based_table_factory(table)
    return options


def _write_database(data: Path, records: int, seed: int, shards: int) -> None:
    data.mkdir(parents=True, exist_ok=True)
    columns = (BLOCK_MISC, FLAT_STATE, FLAT_STATE_CHANGES, FLAT_STATE_DELTA_METADATA, FLAT_STORAGE_STATUS, STATE, STATE_SHARD_UID_MAPPING)
    options = node_options()
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    database = Rdict(str(data), options=options, column_families={column: node_options() for column in columns})
    try:
        flat_head = FlatBlock(_block_hash(records, seed, "flat head"), 1_000, _block_hash(records, seed, "block before the flat head"))
        for shard_id, count in enumerate(shard_records(records, shards)):
            _write_shard(
                database, data.parent / "staging", _shard_uid(shard_id), synthetic_records(count, seed + SHARD_SEED_STEP * shard_id)
            )
            database.get_column_family(FLAT_STORAGE_STATUS)[_shard_uid(shard_id).to_bytes()] = encode_ready_status(flat_head)
    finally:
        database.close()


def _write_shard(database: Rdict, staging: Path, shard_uid: ShardUId, records: Iterator[Row]) -> None:
    """Write a shard's rows, or find them: flat state is taken in whole, after the values it refers to are on the disk."""
    flat_state, state = database.get_column_family(FLAT_STATE), database.get_column_family(STATE)
    if next(iter(flat_state.keys(from_key=shard_uid.to_bytes())), b"").startswith(shard_uid.to_bytes()):
        return
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    unlogged = WriteOptions()
    unlogged.disable_wal = True
    state.set_write_options(unlogged)
    paths = list(_table_files(staging, _flat_state_rows(records, shard_uid, state)))
    state.flush()
    moving = IngestExternalFileOptions()
    moving.set_move_files(True)
    flat_state.ingest_external_file(paths, moving)
    shutil.rmtree(staging)


def _flat_state_rows(records: Iterator[Row], shard_uid: ShardUId, state: Rdict) -> Iterator[Row]:
    """Yield rows of the FlatState column; long values go to the State column on the way, each with a reference count of one."""
    prefix = shard_uid.to_bytes()
    for key, value in records:
        if len(value) <= INLINED_VALUE_BYTES_MAX:
            yield prefix + key, encode_inlined(value)
        else:
            value_hash = hashlib.sha256(value).digest()
            state[prefix + value_hash] = value + (1).to_bytes(8, "little")
            yield prefix + key, encode_ref(len(value), value_hash)


def _table_files(folder: Path, rows: Iterator[Row]) -> Iterator[str]:
    """Write rows into table files of bounded size; yield their paths."""
    for number, first in enumerate(rows):
        path = str(folder / f"ingest-{number}.sst")
        writer = SstFileWriter(node_options())
        writer.open(path)
        step: Iterator[Row] = chain([first], islice(rows, TABLE_ROWS - 1))
        while _write_rows(writer, step) == TABLE_ROWS and writer.file_size() < TABLE_BYTES_TARGET:
            step = islice(rows, TABLE_ROWS)
        writer.finish()
        yield path


def _write_rows(writer: SstFileWriter, rows: Iterator[Row]) -> int:
    count = 0
    for key, row in rows:
        writer[key] = row
        count += 1
    return count


def main() -> None:
    """Make a state from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.synthetic_state", description="Make a node's home with a synthetic state.")
    parser.add_argument("--records", type=int, default=RECORDS_DEFAULT, help=f"{RECORDS_MIN} to {RECORDS_MAX}; default %(default)s")
    parser.add_argument("--seed", type=int, default=SEED_DEFAULT)
    parser.add_argument("--shards", type=int, default=1, help=f"1 to {SHARDS_MAX}; default %(default)s")
    parser.add_argument("--folder", type=Path, required=True, help="where states are kept, one folder each")
    arguments = parser.parse_args()
    if not RECORDS_MIN <= arguments.records <= RECORDS_MAX:
        parser.error(f"--records goes from {RECORDS_MIN} to {RECORDS_MAX}")
    if not 1 <= arguments.shards <= SHARDS_MAX or arguments.records < arguments.shards * RECORDS_PER_SHARD_MIN:
        parser.error(f"--shards goes from 1 to {SHARDS_MAX}, with {RECORDS_PER_SHARD_MIN} records each")
    began = time.monotonic()
    state = synthetic_state(arguments.folder, arguments.records, arguments.seed, arguments.shards)
    print(f"{state.records} records at {state.home}, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
