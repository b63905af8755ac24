"""The nodes and values of all parts become State rows: one row a hash, with the sum of its references.

A row is payload and i64 count, as nearcore's merge operator leaves it when nothing is pending.

Source: nearcore core/store/src/db/refcount.rs, add_positive_refcount.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.restoring.restore_work import RestoreWork, read_summary, write_summary
from pipelines.restoring.rocksdb_writer import write_sorted_file
from schemas.errors import DatasetError
from schemas.ids import ShardUId
from schemas.json_document import FieldReader


@dataclass(frozen=True, slots=True)
class MergedBucket:
    """The result of one bucket of hashes."""

    rows: int
    references: int
    size: int


@dataclass(frozen=True, slots=True)
class MergeStateTask:
    """Merges one bucket of hashes over all parts of a shard."""

    work: RestoreWork
    shard_uid: ShardUId
    num_parts: int
    bucket: int

    def run(self) -> MergedBucket:
        """Write the bucket's rows, or return the summary of an earlier run.

        Raises:
            DatasetError: a work file is missing or damaged.
            StoreError: the rows can't be written.
        """
        earlier = read_summary(self.work.bucket_summary(self.bucket), _read_bucket)
        if earlier is not None and (not earlier.rows or self.work.state(self.bucket).exists()):
            return earlier
        merged: dict[bytes, tuple[int, pa.Scalar]] = {}
        for part in range(self.num_parts):
            for value_hash, references, payload in self._rows(part):
                known = merged.get(value_hash)
                merged[value_hash] = (references, payload) if known is None else (known[0] + references, known[1])
        prefix = self.shard_uid.to_bytes()
        written = write_sorted_file(
            self.work.state(self.bucket),
            ((prefix + value_hash, state_row(merged[value_hash][1].as_py(), merged[value_hash][0])) for value_hash in sorted(merged)),
        )
        result = MergedBucket(written.rows, sum(references for references, _ in merged.values()), written.size)
        write_summary(self.work.bucket_summary(self.bucket), {"rows": result.rows, "references": result.references, "size": result.size})
        return result

    def _rows(self, part: int) -> Iterator[tuple[bytes, int, pa.Scalar]]:
        """Yield a part's rows of this bucket; payloads stay in the mapped file until they are written."""
        path = self.work.references(part)
        try:
            with pa.memory_map(str(path)) as source:
                batch = pa.ipc.open_file(source).get_batch(self.bucket)
        except (OSError, pa.ArrowInvalid, IndexError) as error:
            raise DatasetError(
                problem=f"a work file can't be read: {error}", where=str(path), remedy="Delete the work folder and run again."
            ) from error
        yield from zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), batch.column(2), strict=True)


def state_row(payload: bytes, references: int) -> bytes:
    """Return a State row with nothing pending."""
    return payload + struct.pack("<q", references)


def _read_bucket(document: dict[str, Any]) -> MergedBucket:
    reader = FieldReader(document, "summary of a bucket")
    return MergedBucket(*(reader.number(name, 0, 2**63) for name in ("rows", "references", "size")))
