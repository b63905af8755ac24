"""A node's home with a made-up state of a named size: a database as nearcore lays it out, and its epoch context.

    python -m benchmarks.synthetic_state --records 1000000 --folder state

Flat state is written as sorted table files that the database takes in whole, so a hundred million records need no more memory than
a thousand. The state root is not known beforehand: it is null in the context, and a run computes it.
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
from pipelines.sources.node_columns import (
    BLOCK_MISC,
    FLAT_STATE,
    FLAT_STATE_CHANGES,
    FLAT_STATE_DELTA_METADATA,
    FLAT_STORAGE_STATUS,
    STATE,
    STATE_SHARD_UID_MAPPING,
)
from schemas.epoch_context import EpochContext, ShardContext, parse_epoch_context
from schemas.flat_state import INLINED_VALUE_BYTES_MAX
from schemas.flat_state_value import encode_inlined, encode_ref
from schemas.flat_storage import FlatBlock, encode_ready_status
from schemas.ids import CryptoHash, ShardUId

TABLE_ROWS: Final = 1 << 14
"""Rows between two looks at a table file's size."""

TABLE_BYTES_TARGET: Final = 64 << 20
"""Size of a table file, about: nearcore's own target."""

SHARD_UID: Final = ShardUId(version=3, shard_id=0)
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


def synthetic_state(folder: Path, records: int, seed: int = SEED_DEFAULT) -> SyntheticState:
    """Make the state, or find it made.

    Args:
        folder: where states are kept, one folder each.
        records: from ``RECORDS_MIN`` to ``RECORDS_MAX``.
    """
    home = folder / f"state-{_FORMAT}-{records}-{seed}"
    # The context is written last: without it the home is of a run that was stopped.
    if not (home / "context.json").exists():
        shutil.rmtree(home, ignore_errors=True)
        _write_database(home / "data", records, seed)
        (home / "context.json").write_text(json.dumps(_context(records, seed).to_json(), indent=1))
    return SyntheticState(home, parse_epoch_context((home / "context.json").read_bytes(), str(home / "context.json")), records)


def _block_hash(records: int, seed: int, name: str) -> CryptoHash:
    return CryptoHash(hashlib.sha256(f"synthetic state of {records} records, seed {seed}: {name}".encode()).digest())


def _context(records: int, seed: int) -> EpochContext:
    return EpochContext(
        chain_id="synthetic",
        epoch_height=1,
        epoch_id=_block_hash(records, seed, "epoch"),
        sync_hash=_block_hash(records, seed, "sync block"),
        protocol_version=82,
        shards=(ShardContext(SHARD_UID, state_root=None, flat_head_target=_block_hash(records, seed, "flat head")),),
    )


def node_options() -> Options:
    """Return options near nearcore's for the bottommost level, where nearly all of a node's rows are."""
    options = Options(raw_mode=True)
    options.set_compression_type(DBCompressionType.zstd())
    table = BlockBasedOptions()
    table.set_block_size(16 << 10)
    options.set_block_based_table_factory(table)
    return options


def _write_database(data: Path, records: int, seed: int) -> None:
    data.mkdir(parents=True)
    columns = (BLOCK_MISC, FLAT_STATE, FLAT_STATE_CHANGES, FLAT_STATE_DELTA_METADATA, FLAT_STORAGE_STATUS, STATE, STATE_SHARD_UID_MAPPING)
    options = node_options()
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    database = Rdict(str(data), options=options, column_families={column: node_options() for column in columns})
    try:
        flat_head = FlatBlock(_block_hash(records, seed, "flat head"), 1_000, _block_hash(records, seed, "block before the flat head"))
        database.get_column_family(FLAT_STORAGE_STATUS)[SHARD_UID.to_bytes()] = encode_ready_status(flat_head)
        state = database.get_column_family(STATE)
        unlogged = WriteOptions()
        unlogged.disable_wal = True
        state.set_write_options(unlogged)
        _ingest(database.get_column_family(FLAT_STATE), data, _flat_state_rows(synthetic_records(records, seed), state))
        state.flush()
    finally:
        database.close()


def _flat_state_rows(records: Iterator[Row], state: Rdict) -> Iterator[Row]:
    """Yield rows of the FlatState column; long values go to the State column on the way, each with a reference count of one."""
    prefix = SHARD_UID.to_bytes()
    for key, value in records:
        if len(value) <= INLINED_VALUE_BYTES_MAX:
            yield prefix + key, encode_inlined(value)
        else:
            value_hash = hashlib.sha256(value).digest()
            state[prefix + value_hash] = value + (1).to_bytes(8, "little")
            yield prefix + key, encode_ref(len(value), value_hash)


def _ingest(flat_state: Rdict, folder: Path, rows: Iterator[Row]) -> None:
    moving = IngestExternalFileOptions()
    moving.set_move_files(True)
    for number, first in enumerate(rows):
        path = str(folder / f"ingest-{number}.sst")
        writer = SstFileWriter(node_options())
        writer.open(path)
        step: Iterator[Row] = chain([first], islice(rows, TABLE_ROWS - 1))
        while _write_rows(writer, step) == TABLE_ROWS and writer.file_size() < TABLE_BYTES_TARGET:
            step = islice(rows, TABLE_ROWS)
        writer.finish()
        flat_state.ingest_external_file([path], moving)


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
    parser.add_argument("--folder", type=Path, required=True, help="where states are kept, one folder each")
    arguments = parser.parse_args()
    if not RECORDS_MIN <= arguments.records <= RECORDS_MAX:
        parser.error(f"--records goes from {RECORDS_MIN} to {RECORDS_MAX}")
    began = time.monotonic()
    state = synthetic_state(arguments.folder, arguments.records, arguments.seed)
    print(f"{state.records} records at {state.home}, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
