"""Sorting more records than fit in memory: sorted runs in a temporary folder, merged.

An entry is a key, a sequence number and a payload; entries come out ascending by key, then by sequence number. What a payload means
is the caller's business. Large values don't go through the sort: `ValueSpill` keeps each of them once and hands out its hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Final

import pyarrow as pa

from schemas.errors import SourceError

RUN_BYTES_MAX: Final = 48 << 20
"""Bytes of keys and payloads that are held before a run is written; Python needs a few times as much."""

MERGED_RUNS_MAX: Final = 32
"""Runs that are read at once; when there are as many, they are merged into one."""

_REMEDY: Final = "Give --work (of export: --to) a folder with room; where that is a bucket, set TMPDIR to one."

BATCH_ROWS: Final = 512
"""Rows of a record batch of a run: what a merge holds of each run."""

SPILLED_VALUES_MAX: Final = 8 << 20
"""Most different large values; each takes about 150 bytes of memory."""

_ENTRY_OVERHEAD_BYTES: Final = 200
_RUN_SCHEMA: Final = pa.schema([("key", pa.binary()), ("sequence", pa.uint64()), ("payload", pa.binary())])

Entry = tuple[bytes, int, bytes]


class ExternalSort:
    """Takes entries in any order and gives them back sorted, any number of times."""

    def __init__(self, folder: Path, run_bytes_max: int = RUN_BYTES_MAX) -> None:
        """Begin a sort.

        Args:
            folder: an empty folder for the runs; the caller removes it.
        """
        self._folder = folder
        self._run_bytes_max = run_bytes_max
        self._pending: list[Entry] = []
        self._pending_bytes = 0
        # Runs by how often their entries were merged; a level of MERGED_RUNS_MAX runs becomes one run of the next.
        self._levels: list[list[Path]] = [[]]
        self._runs_written = 0

    def add(self, key: bytes, sequence: int, payload: bytes) -> None:
        """Take an entry.

        Raises:
            SourceError: the temporary folder can't be written.
        """
        self._pending.append((key, sequence, payload))
        self._pending_bytes += len(key) + len(payload) + _ENTRY_OVERHEAD_BYTES
        if self._pending_bytes >= self._run_bytes_max:
            self.flush()

    def flush(self) -> None:
        """Write what is held as a run.

        Raises:
            SourceError: the temporary folder can't be written.
        """
        if not self._pending:
            return
        self._pending.sort()
        self._add_run(self._write_run(self._pending), 0)
        self._pending, self._pending_bytes = [], 0

    def entries(self, begin: bytes, end: bytes | None) -> Iterator[Entry]:
        """Yield the flushed entries with begin <= key < end, ascending by key and sequence number.

        Raises:
            SourceError: a run can't be read back.
        """
        runs = [run for level in self._levels for run in level]
        yield from heapq.merge(*(_read_run(run, begin, end) for run in runs))

    def _add_run(self, run: Path, level: int) -> None:
        if level == len(self._levels):
            self._levels.append([])
        self._levels[level].append(run)
        if len(self._levels[level]) == MERGED_RUNS_MAX:
            merged = self._write_run(heapq.merge(*(_read_run(part, b"", None) for part in self._levels[level])))
            for part in self._levels[level]:
                part.unlink()
            self._levels[level] = []
            self._add_run(merged, level + 1)

    def _write_run(self, entries: Iterable[Entry]) -> Path:
        run = self._folder / f"run-{self._runs_written:06d}.arrow"
        self._runs_written += 1
        try:
            with pa.OSFile(str(run), "wb") as file, pa.ipc.new_file(file, _RUN_SCHEMA) as writer:
                rows: list[Entry] = []
                for entry in entries:
                    rows.append(entry)
                    if len(rows) == BATCH_ROWS:
                        writer.write_batch(_run_batch(rows))
                        rows = []
                if rows:
                    writer.write_batch(_run_batch(rows))
        except OSError as error:
            raise SourceError(
                problem=f"sorted records can't be written to a temporary folder: {error}",
                where=str(run),
                remedy=_REMEDY,
            ) from None
        return run


class ValueSpill:
    """Large values in one temporary file, each once, found again by hash."""

    def __init__(self, folder: Path) -> None:
        """Begin with no value.

        Args:
            folder: where the file is made; the caller removes it.
        """
        self._path = folder / "values.bin"
        self._file: IO[bytes] | None = None
        self._places: dict[bytes, tuple[int, int]] = {}
        self._size = 0

    def put(self, value: bytes) -> bytes:
        """Keep a value and return its sha256.

        Raises:
            SourceError: the file can't be written, or there are too many values.
        """
        value_hash = hashlib.sha256(value).digest()
        if value_hash in self._places:
            return value_hash
        if len(self._places) >= SPILLED_VALUES_MAX:
            raise SourceError(problem=f"there are more than {SPILLED_VALUES_MAX} different large values", where=str(self._path))
        try:
            if self._file is None:
                self._file = self._path.open("w+b")
            self._file.write(value)
        except OSError as error:
            raise SourceError(
                problem=f"values can't be written to a temporary folder: {error}",
                where=str(self._path),
                remedy=_REMEDY,
            ) from None
        self._places[value_hash] = (self._size, len(value))
        self._size += len(value)
        return value_hash

    def get(self, value_hash: bytes) -> bytes | None:
        """Return a value; None when it was never put."""
        place = self._places.get(value_hash)
        if place is None or self._file is None:
            return None
        self._file.flush()
        return os.pread(self._file.fileno(), place[1], place[0])

    def close(self) -> None:
        """Give up the open file."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()


def _run_batch(rows: list[Entry]) -> pa.RecordBatch:
    keys, sequences, payloads = zip(*rows, strict=True)
    return pa.RecordBatch.from_arrays(
        [pa.array(keys, pa.binary()), pa.array(sequences, pa.uint64()), pa.array(payloads, pa.binary())], schema=_RUN_SCHEMA
    )


def _read_run(run: Path, begin: bytes, end: bytes | None) -> Iterator[Entry]:
    try:
        with pa.memory_map(str(run)) as file:
            reader = pa.ipc.open_file(file)
            for index in range(reader.num_record_batches):
                batch = reader.get_batch(index)
                if batch["key"][-1].as_py() < begin:
                    continue
                for key, sequence, payload in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    if end is not None and key >= end:
                        return
                    if key >= begin:
                        yield key, sequence, payload
    except (OSError, pa.ArrowException) as error:
        raise SourceError(problem=f"sorted records can't be read back from a temporary folder: {error}", where=str(run)) from None
