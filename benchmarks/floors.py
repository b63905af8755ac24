"""What the stages are measured against: the same bytes, put through nothing but the one step that no implementation can leave out."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import statecast_kernel
import zstandard
from rocksdict import AccessType, DBCompressionType, Options, Rdict, ReadOptions, SstFileWriter

from benchmarks.synthetic_state import SHARD_UID, SyntheticState
from pipelines.dataset.arrow_dataset import ShardDataset
from pipelines.near.node.node_columns import FLAT_STATE, STATE
from schemas.dataset.flat_state import OWN_VALUE_SCHEMA, RECORD_SCHEMA, VALUE_SCHEMA
from schemas.nearcore.state_part import decode_partial_state
from schemas.published.torrent import piece_hashes

READAHEAD_BYTES = 4 << 20


def scan_node(state: SyntheticState, value_hashes: Sequence[bytes]) -> None:
    """Read every row of flat state, and every referenced value once, through rocksdict, and drop them."""
    columns = {column: Options(raw_mode=True) for column in ("default", FLAT_STATE, STATE)}
    database = Rdict(str(state.home / "data"), options=Options(raw_mode=True), column_families=columns, access_type=AccessType.read_only())
    reading = ReadOptions()
    reading.set_readahead_size(READAHEAD_BYTES)
    deque(database.get_column_family(FLAT_STATE).items(from_key=SHARD_UID.to_bytes(), read_opt=reading), maxlen=0)
    values = database.get_column_family(STATE)
    for value_hash in value_hashes:
        values.get(SHARD_UID.to_bytes() + value_hash)
    database.close()


def write_arrow(dataset: ShardDataset, folder: Path) -> None:
    """Write the record batches of a dataset again, one file a file, and have the disk confirm each."""
    folder.mkdir(exist_ok=True)
    source = Path(dataset.url.removeprefix("file://"), dataset.folder)
    summary = dataset.summary
    names = [
        *((file.name, RECORD_SCHEMA) for file in summary.files),
        *((file.name, OWN_VALUE_SCHEMA) for file in summary.values_files),
        *((file.name, VALUE_SCHEMA) for file in summary.shared_values_files),
    ]
    for number, (name, schema) in enumerate(names):
        with pa.memory_map(str(source / name)) as mapped, open(folder / f"{number}.arrow", "wb") as target:
            reader = pa.ipc.open_file(mapped)
            with pa.ipc.new_file(target, schema) as writer:
                for index in range(reader.num_record_batches):
                    writer.write_batch(reader.get_batch(index).replace_schema_metadata(None))
            target.flush()
            os.fsync(target.fileno())
        os.unlink(folder / f"{number}.arrow")


def hashed_strings(records: Iterable[pa.RecordBatch], interior: pa.Buffer) -> pa.BinaryArray:
    """Return all that a build hashes: the interior's nodes and values, and inlined values as often as records have them."""
    entries = decode_partial_state(interior)
    # An interior has equal values once, but each record's value is hashed.
    values = Counter(value for batch in records for value in batch.column(1).drop_null().to_pylist())
    entries.extend(value for value, count in values.items() for _ in range(count - 1))
    return pa.array(entries, pa.binary())


def part_entries(partial_state: pa.Buffer) -> pa.BinaryArray:
    """Return a part's entries."""
    return pa.array(decode_partial_state(partial_state), pa.binary())


def hash_all(strings: pa.BinaryArray) -> None:
    """Hash each string with the kernel's own SHA-256, on one core."""
    statecast_kernel.sha256_floor(strings)


def digest_once(data: bytes, piece_length: int) -> None:
    """Hash an object once, and its pieces once for each version of torrents."""
    hashlib.sha256(data).digest()
    piece_hashes(data, piece_length)


def write_once(data: bytes, path: Path) -> None:
    """Write a file and have the disk confirm it."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.unlink(path)


def write_table_file(rows: Sequence[tuple[bytes, bytes]], path: Path) -> None:
    """Write rows into an SST file through rocksdict, with the compression of a restored database."""
    options = Options(raw_mode=True)
    options.set_compression_type(DBCompressionType.lz4())
    writer = SstFileWriter(options=options)
    writer.open(str(path))
    for key, row in rows:
        writer[key] = row
    writer.finish()
    os.unlink(path)


def compress_once(data: pa.Buffer, level: int) -> None:
    """Compress in one call."""
    zstandard.ZstdCompressor(level=level).compress(data)
