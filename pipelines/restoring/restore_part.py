"""One part becomes rows: FlatState ready to be taken in, and nodes and values with the references to them.

The part is validated while it is applied. A node or value can also be in other parts; `merge_state` adds the counts up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.kernel.choice import choose_kernel
from pipelines.kernel.trie_kernel import REFERENCES_SCHEMA, CountedPart
from pipelines.restoring.part_object import PartObject, located
from pipelines.restoring.restore_work import RestoreWork, read_summary, write_summary
from pipelines.restoring.rocksdb_writer import UNFINISHED_SUFFIX, write_sorted_file, writing
from pipelines.restoring.state_rows import flat_state_rows
from pipelines.stores.durable_file import give_name
from schemas.errors import IntegrityError
from schemas.ids import ShardUId
from schemas.json_document import FieldReader
from schemas.nearcore.flat_state_limits import KEY_BYTES_MAX


@dataclass(frozen=True, slots=True)
class RestoredPart:
    """The result of restoring a part."""

    records: int
    first_key: bytes | None
    """None for a part without records."""
    last_key: bytes | None
    references: int
    """Sum of the counts of the nodes and values that belong to the part."""
    size: int
    """Bytes of the PartialState."""


@dataclass(frozen=True, slots=True)
class RestorePartTask:
    """Applies one part and leaves its rows in the work folder."""

    part: PartObject
    shard_uid: ShardUId
    work: RestoreWork
    kernel_name: str

    def run(self) -> RestoredPart:
        """Restore the part, or return the summary of an earlier run.

        Raises:
            IntegrityError: the part is not what it should be.
            StoreError: it can't be read, or its rows can't be written.
        """
        index = self.part.part_id.idx
        earlier = self._earlier(index)
        if earlier is not None:
            return earlier
        decoded = self.part.read()
        try:
            applied = choose_kernel(self.kernel_name).apply_counted(
                decoded, self.part.state_root, self.part.part_id, self.work.bucket_count
            )
        except IntegrityError as error:
            raise located(error, self.part.where) from None
        restored = self._restore(index, decoded.size, applied)
        write_summary(
            self.work.part_summary(index),
            {
                "records": restored.records,
                "first_key": None if restored.first_key is None else restored.first_key.hex(),
                "last_key": None if restored.last_key is None else restored.last_key.hex(),
                "references": restored.references,
                "size": restored.size,
            },
        )
        return restored

    def _restore(self, index: int, size: int, applied: CountedPart) -> RestoredPart:
        batches = [batch for batch in applied.records if batch.num_rows]
        first_key = batches[0].column(0)[0].as_py() if batches else None
        last_key = batches[-1].column(0)[batches[-1].num_rows - 1].as_py() if batches else None
        references = sum(pc.sum(batch.column(1)).as_py() or 0 for batch in applied.references)
        self._write_references(index, applied.references)
        records = write_sorted_file(self.work.flat(index), flat_state_rows(batches, self.shard_uid.to_bytes())).rows
        return RestoredPart(records, first_key, last_key, references, size)

    def _earlier(self, index: int) -> RestoredPart | None:
        earlier = read_summary(self.work.part_summary(index), _read_part)
        if earlier is None or not self.work.references(index).exists():
            return None
        return None if earlier.records and not self.work.flat(index).exists() else earlier

    def _write_references(self, index: int, buckets: Sequence[pa.RecordBatch]) -> None:
        path = self.work.references(index)
        unfinished = path.with_name(path.name + UNFINISHED_SUFFIX)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with pa.OSFile(str(unfinished), "wb") as sink, pa.ipc.new_file(sink, REFERENCES_SCHEMA) as writer:
                for batch in buckets:
                    writer.write_batch(batch)
            give_name(unfinished, path)


def _read_part(document: dict[str, Any]) -> RestoredPart:
    reader = FieldReader(document, "summary of a part")
    return RestoredPart(
        records=reader.number("records", 0, 2**63),
        first_key=None if reader.is_null("first_key") else reader.hex_bytes("first_key", KEY_BYTES_MAX),
        last_key=None if reader.is_null("last_key") else reader.hex_bytes("last_key", KEY_BYTES_MAX),
        references=reader.number("references", 0, 2**63),
        size=reader.number("size", 0, 2**63),
    )
