"""The nodes and values of all parts become State rows: one row a hash, with the sum of its references."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.restoring.restore_work import RestoreWork, read_summary, write_summary
from pipelines.restoring.rocksdb_writer import write_sorted_file
from pipelines.restoring.state_rows import MergedRows
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
        rows = MergedRows([self._batch(part) for part in range(self.num_parts)], self.shard_uid.to_bytes())
        written = write_sorted_file(self.work.state(self.bucket), rows)
        result = MergedBucket(written.rows, rows.references, written.size)
        write_summary(self.work.bucket_summary(self.bucket), {"rows": result.rows, "references": result.references, "size": result.size})
        return result

    def _batch(self, part: int) -> pa.RecordBatch:
        """Return a part's rows of this bucket; they stay in the mapped file until they are written."""
        path = self.work.references(part)
        try:
            with pa.memory_map(str(path)) as source:
                batch = pa.ipc.open_file(source).get_batch(self.bucket)
            # A changed offset would lead out of the file's bytes.
            batch.validate(full=True)
        except (OSError, pa.ArrowInvalid, IndexError) as error:
            raise DatasetError(
                problem=f"a work file can't be read: {error}", where=str(path), remedy="Delete the work folder and run again."
            ) from error
        return batch


def _read_bucket(document: dict[str, Any]) -> MergedBucket:
    reader = FieldReader(document, "summary of a bucket")
    return MergedBucket(*(reader.number(name, 0, 2**63) for name in ("rows", "references", "size")))
