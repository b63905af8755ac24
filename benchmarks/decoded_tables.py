"""Decoded tables of a made-up state: how fast they are written, how many bytes a row has, and what one account's look-up reads.

    python -m benchmarks.decoded_tables --records 1000000

The floor, in the same run, is ``pyarrow.parquet.write_table`` of the same columns, which are in memory already, with its own defaults but
for zstd: one that reads no record, decodes nothing and writes no index, filter or digest. Times are processor seconds of one process, so
that what else the machine does hardly counts.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from random import Random
from typing import Final

import pyarrow as pa
import pyarrow.dataset as arrow_dataset
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

import statecast
from benchmarks.command_line import BenchmarkParser, number_from, print_as_json
from benchmarks.counting_store import count_calls, counted_calls, requests, stop_counting, transferred
from benchmarks.folder import benchmark_folder
from benchmarks.measure import CPU, seconds_of
from benchmarks.synthetic_records import RECORDS_MIN, synthetic_records
from pipelines.dataset.arrow_dataset import ShardDataset
from pipelines.dataset.export.export_records import store_summary
from pipelines.dataset.record_files import FileDestination, FileFormat, write_record_files
from pipelines.dataset.tables.decode_tables import finish_tables, plan_tables
from pipelines.dataset.tables.decoded_records import DECODED_ROWS_MAX
from pipelines.dataset.tables.table_writer import KindWriter
from pipelines.dataset.tables.tables_place import TablesPlace
from pipelines.stores.memory_store import MemoryStore
from pipelines.stores.open_store import open_store
from schemas.dataset.dataset_summary import DatasetSummary, shard_folder
from schemas.dataset.flat_state import RECORD_SCHEMA
from schemas.dataset.tables_selection import TablesSelection
from schemas.dataset.tables_summary import TableFile, TablesShard
from schemas.ids import CryptoHash, ShardUId
from schemas.nearcore.epoch_context import EpochContext, ShardContext
from schemas.nearcore.flat_state_limits import INLINED_VALUE_BYTES_MAX
from schemas.nearcore.trie_key import TrieKeyKind

SELECTIONS: Final = {"with raw columns": TablesSelection(), "without": TablesSelection(raw=False)}
RECORDS_DEFAULT: Final = 1_000_000
BATCH_RECORDS: Final = 20_000
ACCESS_KEY_BYTE: Final = 2
LOOK_UPS: Final = 20
"""Accounts that are looked up."""


@dataclass(frozen=True, slots=True)
class WriteFigure:
    """Tables of one selection."""

    selection: str
    rows: int
    rows_per_s: float
    """Of a core's second."""
    bytes_per_row: float
    floor_bytes_per_row: float
    times_floor: float
    """Processor seconds of all, decoding too, to those of the floor."""
    times_floor_encoding: float
    """Of putting the files together out of decoded columns alone, to the floor."""


@dataclass(frozen=True, slots=True)
class LookUpFigure:
    """One account's row, and its access keys."""

    kind: str
    file_bytes: int
    row_group_bytes_max: int
    """Compressed."""
    read_bytes: float
    """In the mean, footer and all."""
    requests: float


@dataclass(frozen=True, slots=True)
class TablesFigures:
    """All figures of a run."""

    records: int
    writes: tuple[WriteFigure, ...]
    look_ups: tuple[LookUpFigure, ...]


def measure(folder: Path, records: int) -> TablesFigures:
    """Return the figures of a made-up state."""
    context, dataset = _dataset(folder, records)
    writes = tuple(_write(folder / f"tables-{number}", context, dataset, name) for number, name in enumerate(SELECTIONS))
    return TablesFigures(records, writes, tuple(_look_up(folder / "tables-0", kind) for kind in ("account", "access_key")))


def _dataset(folder: Path, records: int) -> tuple[EpochContext, ShardDataset]:
    """Write records of the measured mix as a dataset; its root is not looked at by what is measured here, and noted as if it were known."""
    shard = ShardContext(ShardUId(0, 0), CryptoHash(bytes([1]) * 32))
    context = EpochContext("bench", 7, CryptoHash(bytes([2]) * 32), CryptoHash(bytes([3]) * 32), 84, (shard,))
    url = str(folder / "dataset")
    destination = FileDestination(open_store(url, durable=False), shard_folder(context, shard.shard_uid), FileFormat.IPC)
    files = tuple(write_record_files(_batches(records), RECORD_SCHEMA, "flat_state/range-000000", destination))
    return context, store_summary(url, DatasetSummary(context, "made up", "", files, (), verified_state_root=shard.state_root))


def _batches(records: int) -> Iterator[pa.RecordBatch]:
    random = Random(1)
    rows = iter(synthetic_records(records, 1))
    while some := list(islice(rows, BATCH_RECORDS)):
        values = [_access_key(random) if key[0] == ACCESS_KEY_BYTE else value for key, value in some]
        inlined = [value if len(value) <= INLINED_VALUE_BYTES_MAX else None for value in values]
        hashes = [None if found is not None else sha256(value).digest() for found, value in zip(inlined, values, strict=True)]
        columns = ([key for key, _ in some], inlined, [len(value) for value in values], hashes)
        yield pa.RecordBatch.from_arrays(
            [pa.array(column, field.type) for column, field in zip(columns, RECORD_SCHEMA, strict=True)], schema=RECORD_SCHEMA
        )


def _access_key(random: Random) -> bytes:
    """Return an access key as nearcore encodes it, in the shares of `synthetic_records`, whose own don't decode: full access, or function
    calls with an allowance, a receiver and, of few, method names.
    """
    draw, nonce = random.random(), random.randbytes(8)
    if 0.03 <= draw < 0.62:
        return nonce + b"\x01"
    names = [random.randbytes(15).hex().encode() for _ in range(random.randrange(2, 60) if draw < 0.03 else 0)]
    texts = [b"contract.main.near", *names]
    receiver, *listed = (struct.pack("<I", len(text)) + text for text in texts)
    allowance = b"\x01" + random.randbytes(11) + bytes(5)
    return nonce + b"\x00" + allowance + receiver + struct.pack("<I", len(names)) + b"".join(listed)


def _write(folder: Path, context: EpochContext, dataset: ShardDataset, name: str) -> WriteFigure:
    place = TablesPlace.take(str(folder), context.chain_id, SELECTIONS[name])
    written: list[tuple[TableFile, ...]] = []
    tasks = plan_tables(dataset, place.url, place.selection)
    seconds = seconds_of(lambda: written.extend(task.run() for task in tasks), CPU)
    shard = finish_tables(dataset, place.url, place.selection, written)
    place.finish(context, [shard])
    store = open_store(place.url)
    floor_s = again_s = 0.0
    floor_bytes = 0
    for file in shard.files:
        table = pq.ParquetFile(store.open(file.name)).read()
        sink = pa.BufferOutputStream()
        floor_s += seconds_of(_writes(table, sink), CPU)
        floor_bytes += sink.getvalue().size
        again_s += seconds_of(_writes_as_ours(table, shard, file.kind), CPU)
    rows = shard.records
    return WriteFigure(name, rows, rows / seconds, shard.size / rows, floor_bytes / rows, seconds / floor_s, again_s / floor_s)


def _writes(table: pa.Table, sink: pa.NativeFile) -> Callable[[], object]:
    return lambda: pq.write_table(table, sink, compression="zstd")


def _writes_as_ours(table: pa.Table, shard: TablesShard, kind: str) -> Callable[[], object]:
    """Put a file together out of decoded columns, as a task does after decoding, with small row groups, index, filter and digest."""

    def write() -> None:
        writer = KindWriter(shard, TrieKeyKind(kind))
        for batch in table.to_batches(max_chunksize=DECODED_ROWS_MAX):
            writer.add(pa.Table.from_batches([batch]))
        writer.put(MemoryStore("memory://benchmark"), "again")

    return write


def _look_up(folder: Path, kind: str) -> LookUpFigure:
    url = str(folder)
    scan = statecast.scan(url, kind=kind)
    names = scan.arrow().to_table(columns=["account_id"]).column("account_id").unique().to_pylist()
    chosen = Random(1).sample(names, min(LOOK_UPS, len(names)))
    groups = [
        sum(group.column(place).total_compressed_size for place in range(group.num_columns))
        for fragment in scan.arrow().get_fragments()
        for index in range(fragment.metadata.num_row_groups)
        for group in (fragment.metadata.row_group(index),)
    ]
    sizes = [open_store(url).info(fragment.path) for fragment in scan.arrow().get_fragments()]
    count_calls(by_ranges=True)
    try:
        before = counted_calls()
        for name in chosen:
            found = statecast.scan(url, kind=kind).arrow().to_table(filter=arrow_dataset.field("account_id") == name)
            assert found.num_rows, name
        calls = counted_calls() - before
    finally:
        stop_counting()
    return LookUpFigure(
        kind,
        sum(info.size for info in sizes if info is not None),
        max(groups),
        transferred(calls, ("get",)) / len(chosen),
        requests(calls, ("get", "open")) / len(chosen),
    )


def _print(figures: TablesFigures) -> None:
    console = Console(width=140)
    table = Table("tables", title=f"{figures.records:,} records", title_justify="left")
    for heading in ("rows", "rows a second a core", "bytes a row", "floor's", "times the floor", "writing alone"):
        table.add_column(heading, justify="right")
    for one in figures.writes:
        table.add_row(
            one.selection,
            f"{one.rows:,}",
            f"{one.rows_per_s:,.0f}",
            f"{one.bytes_per_row:.1f}",
            f"{one.floor_bytes_per_row:.1f}",
            f"{one.times_floor:.2f}",
            f"{one.times_floor_encoding:.2f}",
        )
    console.print(table)
    table = Table("one account's", title="Look-ups", title_justify="left")
    for heading in ("all files", "largest row group", "bytes read", "requests"):
        table.add_column(heading, justify="right")
    for found in figures.look_ups:
        table.add_row(
            found.kind, f"{found.file_bytes:,}", f"{found.row_group_bytes_max:,}", f"{found.read_bytes:,.0f}", f"{found.requests:.1f}"
        )
    console.print(table)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = BenchmarkParser("decoded_tables", "Time decoding, sizes and look-ups of tables.")
    parser.add_argument("--records", type=number_from(RECORDS_MIN), default=RECORDS_DEFAULT)
    options = parser.parse_args(arguments)
    with benchmark_folder(options.folder) as folder:
        figures = measure(folder, options.records)
    if options.json:
        print_as_json(asdict(figures))
    else:
        _print(figures)


if __name__ == "__main__":
    main()
