"""A source whose records are a list: for tests of what comes after sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import pyarrow as pa

from pipelines.near.node.flat_state_source import NO_STATE_HEADER, FoundStateHeader, KeyRange
from schemas.dataset.flat_state import VALUE_SCHEMA
from schemas.errors import ValueMismatchError
from schemas.ids import ZERO_HASH, CryptoHash, ShardUId
from schemas.nearcore.epoch_context import EpochContext, ShardContext
from tests.support.records import Pairs, record_batches


@dataclass(frozen=True, slots=True)
class ListSource:
    """Records of one shard, split at given positions."""

    pairs: tuple[tuple[bytes, bytes], ...]
    cuts: tuple[int, ...] = ()
    rows_max: int = 1000
    on_node_disk: bool = False

    def describe(self) -> str:
        """Say what this is."""
        return "a list"

    def fingerprint(self, shard: ShardContext) -> str:
        """Digest the records."""
        return sha256(repr((self.pairs, self.cuts)).encode()).hexdigest()

    def key_ranges(self, shard: ShardContext, range_bytes_target: int) -> tuple[KeyRange, ...]:
        """Cut at the given positions."""
        keys = [self.pairs[cut][0] for cut in sorted(set(self.cuts)) if 0 < cut < len(self.pairs)]
        return tuple(KeyRange(begin, end) for begin, end in zip([b"", *keys], [*keys, None], strict=True))

    def records(self, shard: ShardContext, key_range: KeyRange, record_batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
        """Yield the range's records."""
        inside = [(key, value) for key, value in self.pairs if key >= key_range.begin and (key_range.end is None or key < key_range.end)]
        yield from record_batches(inside, self.rows_max)

    def values(self, shard: ShardContext, value_hashes: Sequence[bytes], record_batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
        """Yield values one by one."""
        by_hash = {sha256(value).digest(): value for _, value in self.pairs}
        for value_hash in value_hashes:
            if value_hash not in by_hash:
                raise ValueMismatchError(problem=f"the list has no value {value_hash.hex()}")
            yield pa.RecordBatch.from_pylist([{"value_hash": value_hash, "value": by_hash[value_hash]}], schema=VALUE_SCHEMA)

    def state_header(self, shard: ShardContext, sync_hash: bytes) -> FoundStateHeader:
        """Have none."""
        return NO_STATE_HEADER

    def root_memory_usage(self, shard: ShardContext) -> int | None:
        """Know none."""
        return None


def context_of(*state_roots: CryptoHash | None) -> EpochContext:
    """Return a context of one shard a state root."""
    shards = tuple(ShardContext(ShardUId(0, shard_id), state_root) for shard_id, state_root in enumerate(state_roots or (None,)))
    return EpochContext("test", 7, CryptoHash(b"\1" * 32), ZERO_HASH, 82, shards)


def list_source(pairs: Pairs, cuts: Sequence[int] = (), rows_max: int = 1000) -> ListSource:
    """Return a source of these records."""
    return ListSource(tuple(pairs), tuple(cuts), rows_max)
