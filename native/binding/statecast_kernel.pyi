"""Types of the native module; `pipelines.kernel.native` is what callers use."""

from collections.abc import Callable, Iterator, Sequence
from typing import final

import pyarrow as pa
from typing_extensions import Buffer

__version__: str

class KernelError(Exception):
    """A refusal; args are (class name of schemas.errors, problem, where)."""

@final
class OwnedBuffer:
    """Bytes of the module, read through the buffer protocol (``pa.py_buffer`` wraps them without a copy)."""

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class FlatStateBatches:
    """Rows of the FlatState column on their way into record batches."""

    def __new__(cls, prefix_bytes: int, record_batch_bytes_max: int, with_values: bool) -> FlatStateBatches: ...
    @property
    def last(self) -> tuple[bytes, bytes] | None:
        """The row that was taken last, or was refused; None before the first."""

    def take(self, rows: Iterator[tuple[bytes, bytes]]) -> pa.RecordBatch | None:
        """Return the next batch; None when there are no more rows."""

@final
class ValueBatches:
    """Rows of the State column that are values on their way into record batches."""

    def __new__(cls, record_batch_bytes_max: int) -> ValueBatches: ...
    def append(self, value_hash: bytes, row: bytes) -> tuple[bool, pa.RecordBatch | None]:
        """Take a row whose payload has this hash; return whether it has, and the batch before it if that one is full."""

    def finish(self) -> pa.RecordBatch | None:
        """Return the last batch, if there is one."""

def structure(records: Sequence[pa.RecordBatch], left_key: bytes | None, right_key: bytes | None) -> tuple[bytes, pa.UInt64Array]:
    """Return the edge and one charge a record."""

def build(
    records: Sequence[pa.RecordBatch],
    values: Sequence[pa.RecordBatch],
    left_key: bytes | None,
    right_key: bytes | None,
    keep_interior: bool,
    boundary_nodes: Sequence[bytes],
) -> tuple[bytes, OwnedBuffer | None, int, int]:
    """Return edge, interior, node_count, hashed_bytes."""

def merge(left: bytes, right: bytes) -> bytes:
    """Return the edge of the united range."""

def seal(
    edges: Sequence[bytes],
) -> tuple[bytes, int, bytes, tuple[tuple[bytes, ...], ...], tuple[tuple[tuple[bytes, int], ...], ...]]:
    """Return state_root, memory_usage, root_node, boundary_nodes, charges."""

def assemble(interior: Buffer | None, nodes: Sequence[bytes]) -> OwnedBuffer:
    """Return a part's PartialState bytes."""

def validate(partial_state: Buffer, state_root: bytes, part_id: int, num_parts: int) -> None:
    """Judge a part."""

def validate_sorted(partial_state: Buffer, state_root: bytes, part_id: int, num_parts: int) -> bytes:
    """Judge a part and the order of its entries; return the SHA-256 of its bytes."""

def digest_object(data: Buffer, piece_length: int) -> tuple[bytes, bytes, bytes, bytes, bytes]:
    """Return sha256, v1_pieces, v1_last_unpadded, v2_piece_layer, v2_root."""

def apply(
    partial_state: Buffer, state_root: bytes, part_id: int, num_parts: int
) -> tuple[list[pa.RecordBatch], list[pa.RecordBatch]]:
    """Return batches of records and of referenced values."""

def apply_counted(
    partial_state: Buffer, state_root: bytes, part_id: int, num_parts: int, bucket_count: int
) -> tuple[list[pa.RecordBatch], list[pa.RecordBatch]]:
    """Return batches of records, and one a bucket of what is referred to, ascending by hash."""

def flat_state_rows(records: pa.RecordBatch, prefix: bytes) -> list[tuple[bytes, bytes]]:
    """Return rows of the FlatState column."""

@final
class StateRows:
    """Nodes and values of several parts, merged into rows of the State column."""

    def __new__(cls, batches: Sequence[pa.RecordBatch], prefix: bytes) -> StateRows: ...
    def take(self, begin: int, count: int) -> tuple[list[tuple[bytes, bytes]], int, int]:
        """Return some rows, the sum of their references, and where to go on."""

def check_state_rows(rows: list[tuple[bytes, bytes]], prefix_bytes: int) -> int:
    """Return the sum of their references; each hashes to its key and has one at least."""

def decode_rows(
    first_byte: int, keys: pa.BinaryArray, values: pa.BinaryArray, columns: Sequence[str]
) -> tuple[pa.Int64Array, dict[str, pa.Array]]:
    """Return which rows are of the usual form, and of those the columns."""

def compute_state_header(
    read_row: Callable[[str, bytes], bytes | None], sync_hash: bytes, shard_id: int, chain_id: str, genesis_layout: str | None
) -> bytes:
    """Return a verified ShardStateSyncResponseHeader."""

def verify_state_header(
    header: bytes,
    read_row: Callable[[str, bytes], bytes | None],
    sync_hash: bytes,
    shard_id: int,
    chain_id: str,
    genesis_layout: str | None,
) -> tuple[int, bytes, int, bytes, int, int, int]:
    """Return version, chunk_hash, height_included, state_root, memory_usage, blocks, receipts."""

def sha256_floor(items: pa.BinaryArray | Sequence[Buffer]) -> None:
    """Hash each item, one after the other on one core, and forget the hashes: the least that any kernel spends on them."""
