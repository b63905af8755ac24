"""Are tables what they should be: every file read back and hashed, and the state root recomputed from the raw columns of all."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.dataset.tables.decode_tables import file_stem
from pipelines.execution.executor import TaskNeeds
from pipelines.execution.stage_runner import Amount, StageRunner
from pipelines.kernel.choice import choose_kernel
from pipelines.kernel.trie_kernel import Kernel
from pipelines.stores.open_store import open_store
from pipelines.stores.ranges import read_object
from pipelines.stores.store import Store
from schemas.dataset.flat_state import RECORD_SCHEMA
from schemas.dataset.tables_summary import TableFile, TablesRange, TablesShard
from schemas.errors import IntegrityError, ObjectMismatchError, ObjectNotFoundError
from schemas.ids import ZERO_HASH, CryptoHash
from schemas.published.tables_statement import gives_state_root

VERIFY_TABLES_TASK_MEMORY_BYTES = 700 << 20
"""Most memory of a process that reads the tables of one dataset file and hashes their records."""


@dataclass(frozen=True, slots=True)
class WrongFile:
    """A file that is not what its summary says."""

    name: str
    missing: bool
    problem: str


@dataclass(frozen=True, slots=True)
class ReadTables:
    """What reading some files of a shard's tables came to."""

    wrong: tuple[WrongFile, ...]
    edge: bytes | None
    """The hashed key range; None where a file is wrong, or nothing was to be hashed."""
    files: int
    records: int
    size: int


@dataclass(frozen=True, slots=True)
class ReadTablesTask:
    """Reads the tables of one file of the dataset back, and hashes their records."""

    url: str
    files: tuple[TableFile, ...]
    hashed: TablesRange | None
    """The key range of the records; None where they are not hashed."""
    left_key: bytes | None
    """Last key before the range; None at the shard's begin."""
    right_key: bytes | None
    """First key after it."""
    kernel_name: str

    def run(self) -> ReadTables:
        """Read and hash.

        Raises:
            StoreError: the store can't be read.
        """
        store = open_store(self.url)
        wrong, tables = [], []
        for file in self.files:
            found = _read(store, file)
            if isinstance(found, WrongFile):
                wrong.append(found)
            elif self.hashed is not None:
                tables.append(found)
        edge = None
        if self.hashed is not None and not wrong:
            try:
                edge = self._edge(tables)
            except (IntegrityError, pa.ArrowException, KeyError, OSError) as error:
                wrong.append(WrongFile(self.files[0].name if self.files else self.url, False, f"its records do not hash: {error}"))
        return ReadTables(
            tuple(wrong), edge, len(self.files), sum(file.records for file in self.files), sum(file.size for file in self.files)
        )

    def _edge(self, tables: Sequence[bytes]) -> bytes:
        columns = [pq.ParquetFile(pa.BufferReader(data)).read(columns=RECORD_SCHEMA.names) for data in tables]
        records = pa.concat_tables([table.select(RECORD_SCHEMA.names).replace_schema_metadata() for table in columns])
        in_order = records.sort_by("key").cast(RECORD_SCHEMA).combine_chunks().to_batches()
        kernel = choose_kernel(self.kernel_name)
        return kernel.build(in_order, (), self.left_key, self.right_key, keep_interior=False).edge


def _read(store: Store, file: TableFile) -> bytes | WrongFile:
    try:
        data = read_object(store, file.name, file.size)
    except ObjectNotFoundError:
        return WrongFile(file.name, True, "it is missing")
    except ObjectMismatchError as error:
        return WrongFile(file.name, False, error.problem)
    if hashlib.sha256(data).hexdigest() != file.sha256:
        return WrongFile(file.name, False, "it does not have the sha256 of its summary")
    return data


@dataclass(frozen=True, slots=True)
class VerifiedTables:
    """What reading a shard's tables back came to."""

    wrong: tuple[WrongFile, ...]
    state_root: CryptoHash | None
    """What their records hash to; None where a file is wrong, or the tables don't have all records whole."""
    files: int
    records: int
    size: int


def verify_tables(runner: StageRunner, kernel: Kernel, url: str, shard: TablesShard) -> VerifiedTables:
    """Read all files of a shard's tables, and recompute the state root where that can be.

    Raises:
        StoreError: passed on from the tasks.
    """
    hashed = gives_state_root(shard)
    tasks = _tasks(kernel, url, shard, hashed)
    read = runner.run("check tables", str(shard.shard_uid), tasks, TaskNeeds(VERIFY_TABLES_TASK_MEMORY_BYTES), _amount)
    wrong = tuple(found for one in read for found in one.wrong)
    state_root = None
    if hashed and not wrong:
        edges = [one.edge for one in read if one.edge is not None]
        state_root = kernel.seal(edges).state_root if edges else ZERO_HASH
    return VerifiedTables(
        wrong, state_root, sum(one.files for one in read), sum(one.records for one in read), sum(one.size for one in read)
    )


def _amount(read: ReadTables) -> Amount:
    return Amount(records=read.records, size=read.size)


def _tasks(kernel: Kernel, url: str, shard: TablesShard, hashed: bool) -> list[ReadTablesTask]:
    by_stem: dict[str, list[TableFile]] = {one.stem: [] for one in shard.ranges}
    for file in shard.files:
        by_stem.setdefault(file_stem(file.name), []).append(file)
    if not hashed:
        return [ReadTablesTask(url, tuple(files), None, None, None, kernel.name) for files in by_stem.values()]
    ranges = shard.ranges
    lefts = [None, *(one.last_key for one in ranges)]
    rights = [*(one.first_key for one in ranges[1:]), None]
    return [
        ReadTablesTask(url, tuple(by_stem[one.stem]), one, left, right, kernel.name)
        for one, left, right in zip(ranges, lefts[: len(ranges)], rights, strict=True)
    ]
