"""How often each byte of a record is read, copied, hashed, compressed and written on its way from a node's database to its object.

Counted, not estimated: a whole production runs in this process while the functions that do these things count the bytes that they are
given. What is below a tenth of a byte a record (summaries, statements, nodes on boundaries) is left out.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.stage_results import LedgerRow
from benchmarks.synthetic_state import SyntheticState
from benchmarks.whole_run import run_whole
from pipelines.dataset import dataset_files, record_files
from pipelines.execution.in_process import InProcessExecutor
from pipelines.execution.stage_runner import StageRunner
from pipelines.kernel import part_check
from pipelines.kernel.native import NativeKernel
from pipelines.near.node import node_store
from pipelines.near.node.rocksdb_reader import RocksDbReader
from pipelines.producing.build import build_part
from pipelines.producing.publish import publish_part
from pipelines.stores.file_store import FileStore
from schemas.nearcore.flat_state_limits import INLINED_VALUE_BYTES_MAX

BYTES_A_RECORD_MIN: Final = 0.1
"""Less is not told."""

_FLAT_STATE_ROW_BYTES: Final = 8 + 1 + 4
"""Of a row of flat state beside its trie key and its value: shard uid, tag, length."""

_HASH_BYTES: Final = 32
"""What a row has in place of a longer value."""

REASONS: Final = {
    ("read", "rows of the database"): "scan, each referenced value once",
    ("hashed", "a referenced value"): "believed by its hash alone",
    ("copied", "into a record batch"): "RocksDB's bytes go with its cursor",
    ("copied", "into a file's bytes"): "stored whole or not at all",
    ("hashed", "a stored file"): "names what the dataset holds; as it is copied",
    ("written", "to a store"): "what the stage leaves",
    ("read", "from a store"): "interiors, own values, what is read back",
    ("read", "mapped record batches"): "keys and lengths to plan, all to build",
    ("hashed", "values and nodes, to build"): "the state root",
    ("copied", "into an interior"): "sorted, each once",
    ("hashed", "an interior and an edge"): "a rerun sees that they are whole",
    ("copied", "into a part"): "interior and boundary nodes, sorted",
    ("compressed", "a part"): "the object",
    ("decompressed", "an object"): "validated is what readers decode",
    ("hashed", "values and nodes, to validate"): "reached by hash from the root",
    ("hashed", "a decoded part"): "the statement's, in the same reading",
    ("hashed", "an object, with its pieces"): "SHA-256, pieces, leaves; one reading",
    ("compared", "with what was put"): "what came back is what was put",
}
"""Why each pass is there."""


@dataclass(slots=True)
class Ledger:
    """Bytes by stage, kind of pass and what was passed over."""

    stage: str
    counts: Counter[tuple[str, str, str]]

    def count(self, kind: str, what: str, size: int) -> None:
        """Count bytes to the stage that runs."""
        self.counts[self.stage, kind, what] += size


def measure_ledger(state: SyntheticState, folder: Path, export_range_bytes: int) -> list[LedgerRow]:
    """Make a whole production in this process and return its passes, in the order of the stages.

    Args:
        folder: removed before and after.
    """
    shutil.rmtree(folder, ignore_errors=True)
    ledger = Ledger("", Counter())
    with _counting(ledger):
        run_whole(InProcessExecutor(), state, folder, export_range_bytes)
    shutil.rmtree(folder)
    source = sum(size for (_, kind, what), size in ledger.counts.items() if (kind, what) == ("read", "rows of the database"))
    return [
        LedgerRow(stage, kind, what, size / state.records, size / source, REASONS[kind, what])
        for (stage, kind, what), size in ledger.counts.items()
        if stage and size >= BYTES_A_RECORD_MIN * state.records
    ]


@contextmanager
def _counting(ledger: Ledger) -> Iterator[None]:
    def counting(owner: Any, name: str, count: Callable[[Any, tuple[Any, ...]], None]) -> None:
        original = getattr(owner, name)

        def counted(*given: Any, **named: Any) -> Any:
            result = original(*given, **named)
            count(result, given)
            return result

        stack.enter_context(patch.object(owner, name, counted))

    def generating(owner: Any, name: str, kind: str, what: str, size: Callable[[Any], int]) -> None:
        original = getattr(owner, name)

        def counted(*given: Any, **named: Any) -> Iterator[Any]:
            for one in original(*given, **named):
                ledger.count(kind, what, size(one))
                yield one

        stack.enter_context(patch.object(owner, name, counted))

    def hashing(module: Any, what: str) -> None:
        def sha256(data: Any = b"") -> Any:
            ledger.count("hashed", what, memoryview(data).nbytes)
            return hashlib.sha256(data)

        stack.enter_context(patch.object(module, "hashlib", SimpleNamespace(sha256=sha256)))

    def staged(self: StageRunner, stage: str, *given: Any, **named: Any) -> Any:
        ledger.stage = stage
        try:
            return run(self, stage, *given, **named)
        finally:
            ledger.stage = ""

    run = StageRunner.run
    with ExitStack() as stack:
        stack.enter_context(patch.object(StageRunner, "run", staged))
        generating(RocksDbReader, "scan_by", "read", "rows of the database", _scanned)
        counting(RocksDbReader, "get", lambda row, _: ledger.count("read", "rows of the database", len(row or b"")))
        many = "read", "rows of the database"
        counting(RocksDbReader, "get_many", lambda rows, _: ledger.count(*many, sum(len(row or b"") for row in rows)))
        for decoding in ("decode_rows", "scan_rows"):
            generating(node_store, decoding, "copied", "into a record batch", lambda batch: batch.nbytes)
        generating(node_store, "read_column_values", "hashed", "a referenced value", lambda batch: batch.column("value").nbytes)
        counting(record_files.FileBytes, "write", lambda size, _: _count_file(ledger, size))
        counting(FileStore, "put", lambda info, _: ledger.count("written", "to a store", info.size))
        counting(FileStore, "get", lambda data, _: ledger.count("read", "from a store", len(data)))
        counting(dataset_files.IpcBatches, "read", lambda batch, _: ledger.count("read", "mapped record batches", _used(ledger, batch)))
        counting(NativeKernel, "build", lambda build, _: _count_build(ledger, build))
        hashing(build_part, "an interior and an edge")
        counting(NativeKernel, "assemble", lambda part, _: ledger.count("copied", "into a part", part.size))
        counting(publish_part, "encode_state_part", lambda _, given: ledger.count("compressed", "a part", given[0].size))
        counting(part_check, "decode_state_part", lambda part, _: ledger.count("decompressed", "an object", part.size))
        counting(NativeKernel, "validate_sorted", lambda _, given: _count_validation(ledger, given[1].size))
        counting(NativeKernel, "digest_object", lambda _, given: ledger.count("hashed", "an object, with its pieces", 3 * len(given[1])))
        counting(publish_part, "reads_back", lambda _, given: ledger.count("compared", "with what was put", len(given[2])))
        yield


def _scanned(made: Any) -> int:
    """Return the bytes of keys and rows that a scan has given, as they are or in a record batch."""
    if not isinstance(made, pa.RecordBatch):
        return sum(len(key) + len(row) for key, row in made)
    lengths = made.column("value_length").to_numpy().astype(np.int64)
    rows = _FLAT_STATE_ROW_BYTES + np.where(lengths > INLINED_VALUE_BYTES_MAX, _HASH_BYTES, lengths)
    return int(rows.sum()) + int(pc.sum(pc.binary_length(made.column("key"))).as_py())


def _used(ledger: Ledger, batch: pa.RecordBatch) -> int:
    """Return what of a mapped batch is read: planning looks at keys and lengths alone."""
    columns = ("key", "value_length") if ledger.stage in ("structure", "boundaries") else batch.schema.names
    return sum(batch.column(name).nbytes for name in columns)


def _count_file(ledger: Ledger, size: int) -> None:
    ledger.count("copied", "into a file's bytes", size)
    ledger.count("hashed", "a stored file", size)


def _count_build(ledger: Ledger, build: Any) -> None:
    ledger.count("hashed", "values and nodes, to build", build.hashed_bytes)
    if build.interior is not None:
        ledger.count("copied", "into an interior", build.interior.size)


def _count_validation(ledger: Ledger, size: int) -> None:
    ledger.count("hashed", "values and nodes, to validate", size)
    ledger.count("hashed", "a decoded part", size)
