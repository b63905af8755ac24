"""One part becomes rows: FlatState ready to be taken in, and nodes and values with the references to them.

The part is validated while it is applied. A node or value can also be in other parts; `merge_state` adds the counts up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import pyarrow as pa

from pipelines.kernel.choice import choose_kernel
from pipelines.kernel.trie_kernel import AppliedPart
from pipelines.restoring.part_object import PartObject, located
from pipelines.restoring.reference_counts import count_references
from pipelines.restoring.restore_work import RestoreWork, read_summary, write_summary
from pipelines.restoring.rocksdb_writer import UNFINISHED_SUFFIX, write_sorted_file, writing
from pipelines.stores.durable_file import give_name
from schemas.dataset.flat_state_value import encode_inlined, encode_ref
from schemas.errors import IntegrityError, MissingTrieValueError
from schemas.ids import ShardUId
from schemas.json_document import FieldReader
from schemas.nearcore.flat_state_limits import KEY_BYTES_MAX
from schemas.nearcore.state_part import decode_partial_state

REFERENCES_SCHEMA = pa.schema(
    [
        pa.field("hash", pa.binary(32), nullable=False),
        pa.field("references", pa.int64(), nullable=False),
        pa.field("payload", pa.binary(), nullable=False),
    ]
)
"""Nodes and values of a part, ascending by hash."""


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
            applied = choose_kernel(self.kernel_name).apply(decoded, self.part.state_root, self.part.part_id)
            restored = self._restore(index, decoded, applied)
        except IntegrityError as error:
            raise located(error, self.part.where) from None
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

    def _restore(self, index: int, decoded: pa.Buffer, applied: AppliedPart) -> RestoredPart:
        batches = [batch for batch in applied.records if batch.num_rows]
        first_key = batches[0].column(0)[0].as_py() if batches else None
        last_key = batches[-1].column(0)[batches[-1].num_rows - 1].as_py() if batches else None
        counts: dict[bytes, int] = {}
        entries: dict[bytes, bytes] = {}
        if first_key is not None and last_key is not None:
            entries = {sha256(entry).digest(): entry for entry in decode_partial_state(decoded)}
            counts = count_references(lambda node_hash: _entry(entries, node_hash), self.part.state_root, first_key, last_key)
        self._write_references(index, counts, entries)
        records = write_sorted_file(self.work.flat(index), _flat_rows(self.shard_uid.to_bytes(), batches)).rows
        return RestoredPart(records, first_key, last_key, sum(counts.values()), decoded.size)

    def _earlier(self, index: int) -> RestoredPart | None:
        earlier = read_summary(self.work.part_summary(index), _read_part)
        if earlier is None or not self.work.references(index).exists():
            return None
        return None if earlier.records and not self.work.flat(index).exists() else earlier

    def _write_references(self, index: int, counts: dict[bytes, int], entries: dict[bytes, bytes]) -> None:
        path = self.work.references(index)
        unfinished = path.with_name(path.name + UNFINISHED_SUFFIX)
        buckets: list[list[bytes]] = [[] for _ in range(self.work.bucket_count)]
        for value_hash in sorted(counts):
            buckets[self.work.bucket_of(value_hash)].append(value_hash)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with pa.OSFile(str(unfinished), "wb") as sink, pa.ipc.new_file(sink, REFERENCES_SCHEMA) as writer:
                for hashes in buckets:
                    columns = [
                        pa.array(hashes, pa.binary(32)),
                        pa.array([counts[value_hash] for value_hash in hashes], pa.int64()),
                        pa.array([_entry(entries, value_hash) for value_hash in hashes], pa.binary()),
                    ]
                    writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=REFERENCES_SCHEMA))
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


def _entry(entries: dict[bytes, bytes], value_hash: bytes) -> bytes:
    entry = entries.get(value_hash)
    if entry is None:
        raise MissingTrieValueError(problem="the part lacks a node or value of its key range", where=value_hash.hex())
    return entry


def _flat_rows(prefix: bytes, batches: Sequence[pa.RecordBatch]) -> Iterator[tuple[bytes, bytes]]:
    for batch in batches:
        keys, values, lengths, hashes = (column.to_pylist() for column in batch.columns)
        for key, value, length, value_hash in zip(keys, values, lengths, hashes, strict=True):
            yield prefix + key, encode_ref(length, value_hash) if value is None else encode_inlined(value)
