"""The kernel Protocol over the reference modules: Arrow in, Arrow and edges out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import pairwise

import pyarrow as pa

from pipelines.kernel.edge import decode_edge, encode_edge
from pipelines.kernel.reference.building import build_range
from pipelines.kernel.reference.merging import merge_edges, seal_edges
from pipelines.kernel.reference.reading import read_keys, read_value_lengths, read_values
from pipelines.kernel.reference.walking import PartEntries, walk_part
from pipelines.kernel.reference_counts import bucket_of, count_references
from pipelines.kernel.trie_kernel import REFERENCES_SCHEMA, AppliedPart, Build, CountedPart, Sealed, Structure
from schemas.dataset.flat_state import RECORD_SCHEMA, VALUE_SCHEMA
from schemas.errors import MalformedPartError
from schemas.ids import CryptoHash, PartId
from schemas.nearcore.flat_state_limits import INLINED_VALUE_BYTES_MAX
from schemas.nearcore.state_part import decode_partial_state, encode_partial_state
from schemas.nearcore.trie_node import nibbles_to_key
from schemas.published.torrent import PartPieces, piece_hashes

RECORD_BATCH_BYTES_TARGET = 32 << 20
"""An applied part's record batches are cut when they reach this; Arrow's binary arrays hold 2 GiB."""


class ReferenceKernel:
    """The executable specification of `pipelines.kernel.trie_kernel.Kernel`."""

    name = "reference"

    def structure(self, records: Sequence[pa.RecordBatch], left_key: bytes | None, right_key: bytes | None) -> Structure:
        """Compute shape and memory usage of a key range: see `Kernel.structure`."""
        keys = read_keys(records, left_key, right_key)
        built = build_range(keys, read_value_lengths(records), left_key, right_key, hashed=False)
        return Structure(edge=encode_edge(built.edge), charges=pa.array(built.charges, pa.uint64()))

    def build(
        self,
        records: Sequence[pa.RecordBatch],
        values: Sequence[pa.RecordBatch],
        left_key: bytes | None,
        right_key: bytes | None,
        *,
        keep_interior: bool = True,
        boundary_nodes: Sequence[bytes] = (),
    ) -> Build:
        """Hash all that lies inside a key range: see `Kernel.build`."""
        keys = read_keys(records, left_key, right_key)
        range_values = read_values(records, values, keep_values=keep_interior)
        built = build_range(keys, range_values.value_refs, left_key, right_key, hashed=True)
        return Build(
            edge=encode_edge(built.edge),
            interior=encode_partial_state([*built.nodes, *range_values.values, *boundary_nodes]) if keep_interior else None,
            node_count=len(built.nodes),
            hashed_bytes=range_values.hashed_bytes + sum(map(len, built.nodes)),
        )

    def merge(self, left: bytes, right: bytes) -> bytes:
        """Merge the edges of two adjacent key ranges: see `Kernel.merge`."""
        return encode_edge(merge_edges(decode_edge(left), decode_edge(right)))

    def seal(self, edges: Sequence[bytes]) -> Sealed:
        """Merge all edges of a shard: see `Kernel.seal`."""
        return seal_edges([decode_edge(edge) for edge in edges])

    def assemble(self, interior: pa.Buffer | None, nodes: Sequence[bytes]) -> pa.Buffer:
        """Unite a part's interior and boundary nodes: see `Kernel.assemble`."""
        return encode_partial_state([*([] if interior is None else decode_partial_state(interior)), *nodes])

    def validate(self, partial_state: pa.Buffer, state_root: CryptoHash, part_id: PartId) -> None:
        """Judge a part as nearcore does: see `Kernel.validate`."""
        entries = PartEntries(decode_partial_state(partial_state))
        for _ in walk_part(entries, state_root, part_id):
            pass
        entries.check_all_visited()

    def validate_sorted(self, partial_state: pa.Buffer, state_root: CryptoHash, part_id: PartId) -> bytes:
        """Judge a part and the order of its entries: see `Kernel.validate_sorted`."""
        self.validate(partial_state, state_root, part_id)
        if any(left >= right for left, right in pairwise(decode_partial_state(partial_state))):
            raise MalformedPartError(problem=f"the entries of part {part_id} are not in ascending order")
        return sha256(partial_state).digest()

    def digest_object(self, data: bytes, piece_length: int) -> tuple[bytes, PartPieces]:
        """Digest an object and its pieces: see `Kernel.digest_object`."""
        return sha256(data).digest(), piece_hashes(data, piece_length)

    def apply(self, partial_state: pa.Buffer, state_root: CryptoHash, part_id: PartId) -> AppliedPart:
        """Validate a part and return its records: see `Kernel.apply`."""
        self.validate(partial_state, state_root, part_id)
        entries = PartEntries(decode_partial_state(partial_state))
        referenced: dict[bytes, bytes] = {}

        def record_rows() -> Iterator[tuple[int, dict[str, object]]]:
            for nibbles, value in walk_part(entries, state_root, part_id):
                key = nibbles_to_key(nibbles)
                inlined = len(value) <= INLINED_VALUE_BYTES_MAX
                value_hash = None if inlined else sha256(value).digest()
                if value_hash is not None:
                    referenced[value_hash] = value
                row: dict[str, object] = {
                    "key": key,
                    "value": value if inlined else None,
                    "value_length": len(value),
                    "value_hash": value_hash,
                }
                yield len(key) + (len(value) if inlined else 0), row

        records = tuple(_record_batches(record_rows(), RECORD_SCHEMA))
        value_rows = ((len(value), {"value_hash": value_hash, "value": value}) for value_hash, value in sorted(referenced.items()))
        return AppliedPart(records=records, values=tuple(_record_batches(value_rows, VALUE_SCHEMA)))

    def apply_counted(self, partial_state: pa.Buffer, state_root: CryptoHash, part_id: PartId, bucket_count: int) -> CountedPart:
        """Validate a part, return its records and count references: see `Kernel.apply_counted`."""
        applied = self.apply(partial_state, state_root, part_id)
        batches = [batch for batch in applied.records if batch.num_rows]
        buckets: list[list[dict[str, object]]] = [[] for _ in range(bucket_count)]
        if batches:
            entries = {sha256(entry).digest(): entry for entry in decode_partial_state(partial_state)}
            first_key, last_key = batches[0].column(0)[0].as_py(), batches[-1].column(0)[batches[-1].num_rows - 1].as_py()
            counts = count_references(lambda hashes: [entries[one] for one in hashes], state_root, first_key, last_key)
            for value_hash, count in sorted(counts.items()):
                row: dict[str, object] = {"hash": value_hash, "references": count, "payload": entries[value_hash]}
                buckets[bucket_of(value_hash, bucket_count)].append(row)
        references = tuple(pa.RecordBatch.from_pylist(rows, schema=REFERENCES_SCHEMA) for rows in buckets)
        return CountedPart(records=applied.records, references=references)


def _record_batches(sized_rows: Iterator[tuple[int, Mapping[str, object]]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    rows: list[Mapping[str, object]] = []
    batch_bytes = 0
    for row_bytes, row in sized_rows:
        rows.append(row)
        batch_bytes += row_bytes
        if batch_bytes >= RECORD_BATCH_BYTES_TARGET:
            yield pa.RecordBatch.from_pylist(rows, schema=schema)
            rows, batch_bytes = [], 0
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema=schema)
