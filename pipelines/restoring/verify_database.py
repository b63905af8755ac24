"""Reads a restored database back, through the reader that also reads nodes, and proves it.

For each part's key range: the flat state is hashed again, and the trie is walked through the State column alone, its references
counted again. For each bucket: every State row hashes to its key and has a count above zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.kernel.choice import choose_kernel
from pipelines.kernel.reference_counts import count_references
from pipelines.near.node.flat_state_rows import decode_rows
from pipelines.near.node.node_columns import FLAT_STATE, STATE
from pipelines.near.node.rocksdb_reader import RocksDbReader, cached_reader
from pipelines.restoring.restore_work import RestoreWork
from pipelines.restoring.state_rows import STATE_COUNT_BYTES, check_state_rows
from schemas.errors import ValueMismatchError
from schemas.ids import CryptoHash, ShardUId
from schemas.nearcore.flat_state_limits import KEY_BYTES_MAX

_COLUMNS = (FLAT_STATE, STATE)

RECORD_BATCH_BYTES_MAX = 4 << 20
"""Bytes of a record batch of what is hashed again, about."""


@dataclass(frozen=True, slots=True)
class VerifiedRange:
    """The result of a key range of the database."""

    edge: bytes
    """For the kernel's seal."""
    records: int
    references: int


@dataclass(frozen=True, slots=True)
class VerifyRangeTask:
    """Proves the rows from one part's first key up to the next one's."""

    database: str
    shard_uid: ShardUId
    state_root: CryptoHash
    kernel_name: str
    left_key: bytes | None
    """Last key before the range; None at the left end, where everything from the shard's first row is read."""
    first_key: bytes
    last_key: bytes
    right_key: bytes | None
    """First key after the range; None at the right end, where everything to the shard's last row is read."""

    def run(self) -> VerifiedRange:
        """Read and hash the range.

        Raises:
            SourceError, IntegrityError: the database is not what was written.
        """
        reader = cached_reader(Path(self.database), _COLUMNS)
        prefix = self.shard_uid.to_bytes()
        begin = prefix if self.left_key is None else prefix + self.first_key
        end = prefix + (b"\xff" * (KEY_BYTES_MAX + 1) if self.right_key is None else self.right_key)
        where = f"FlatState of shard {self.shard_uid}, {self.database}"
        batches = list(decode_rows(reader.scan(FLAT_STATE, begin, end), len(prefix), RECORD_BATCH_BYTES_MAX, where))
        built = choose_kernel(self.kernel_name).build(batches, (), self.left_key, self.right_key, keep_interior=False)
        counts = count_references(lambda hashes: _payloads(reader, prefix, hashes), self.state_root, self.first_key, self.last_key)
        return VerifiedRange(built.edge, sum(batch.num_rows for batch in batches), sum(counts.values()))


@dataclass(frozen=True, slots=True)
class VerifiedBucket:
    """The result of a bucket of State rows."""

    rows: int
    references: int


@dataclass(frozen=True, slots=True)
class VerifyBucketTask:
    """Proves the State rows of one bucket of hashes."""

    database: str
    shard_uid: ShardUId
    work: RestoreWork
    bucket: int

    def run(self) -> VerifiedBucket:
        """Read and hash the bucket's rows.

        Raises:
            ValueMismatchError: a row does not hash to its key, or its count is not above zero.
            SourceError: the database can't be read.
        """
        reader = cached_reader(Path(self.database), _COLUMNS)
        prefix = self.shard_uid.to_bytes()
        last = self.bucket + 1 == self.work.bucket_count
        begin = prefix if self.bucket == 0 else prefix + self.work.bucket_begin(self.bucket)
        end = prefix + (b"\xff" * 33 if last else self.work.bucket_begin(self.bucket + 1))
        count, total = 0, 0
        for rows in reader.scan(STATE, begin, end):
            total += check_state_rows(rows, len(prefix), self.database)
            count += len(rows)
        return VerifiedBucket(count, total)


def _payloads(reader: RocksDbReader, prefix: bytes, hashes: Sequence[bytes]) -> list[bytes]:
    keys = [prefix + value_hash for value_hash in hashes]
    rows = []
    for key, row in zip(keys, reader.get_many(STATE, keys), strict=True):
        if row is None:
            raise ValueMismatchError(problem=f"the State row {key[len(prefix) :].hex()} is missing", where=str(reader.folder))
        rows.append((key, row))
    check_state_rows(rows, len(prefix), str(reader.folder))
    return [row[:-STATE_COUNT_BYTES] for _, row in rows]
