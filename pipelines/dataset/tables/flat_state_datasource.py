"""An exported epoch as a Ray dataset: `read_flat_state`. The records are decoded where they are read; nothing is copied first.

``ray.data`` needs pandas, so this is the extra ``statecast[data]``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from pipelines.dataset.arrow_dataset import ShardDataset
from pipelines.dataset.tables.decoded_records import decoded_schema
from pipelines.dataset.tables.decoded_span import DecodedSpan, Selection, decoded_spans, select
from pipelines.dataset.tables.export_tables import chosen_shards, prove_roots
from pipelines.execution.on_ray import RayExecutor
from pipelines.execution.progress import SilentProgress
from pipelines.execution.stage_runner import StageRunner
from pipelines.kernel.choice import choose_kernel
from schemas.errors import InvalidInputError

# After our own: it sets what Ray reads from the environment when it is imported.
try:
    import ray.data
    from ray.data.block import BlockMetadata
except ImportError as error:
    raise InvalidInputError(problem=f"Ray Data can't be imported: {error}", remedy="pip install 'statecast[data]'") from error

DECODED_BYTES_PER_STORED = 3
"""Bytes of decoded records for one stored, about; Ray plans its memory by it before a task has run."""


class FlatStateDatasource(ray.data.Datasource):  # type: ignore[misc]
    """The records of exported shards, one read task a file or a piece of one."""

    def __init__(self, shards: Sequence[ShardDataset], selection: Selection, on_driver: bool = False) -> None:
        """Take the shards.

        Args:
            shards: of one epoch.
            selection: which records and columns.
            on_driver: read on the driver's machine only, as a dataset on its own disk needs on a cluster.
        """
        super().__init__()
        self._shards = tuple(shards)
        self._selection = selection
        self._on_driver = on_driver

    @property
    def supports_distributed_reads(self) -> bool:
        """Whether any machine can read the dataset."""
        return not self._on_driver

    def estimate_inmemory_data_size(self) -> int:
        """Return about how many bytes the decoded records have."""
        return sum(span.size for span in self._spans(1)) * DECODED_BYTES_PER_STORED

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: object = None
    ) -> list[ray.data.ReadTask]:
        """Return a task a file; files are cut where there are fewer than ``parallelism``."""
        files = sum(1 for _ in self._spans(1))
        spans = self._spans(-(-parallelism // files) if files else 1)
        return [_read_task(span, per_task_row_limit) for span in spans]

    def _spans(self, pieces_per_file: int) -> Iterator[DecodedSpan]:
        for shard in self._shards:
            yield from decoded_spans(shard, self._selection, pieces_per_file)


def _read_task(span: DecodedSpan, row_limit: int | None) -> ray.data.ReadTask:
    metadata = BlockMetadata(
        # Rows of single kinds are not counted in the summary.
        num_rows=span.span.stop - span.span.start if span.selection.kinds is None else None,
        size_bytes=span.size * DECODED_BYTES_PER_STORED,
        input_files=(f"{span.dataset.url}/{span.dataset.folder}/{span.file.name}",),
        exec_stats=None,
    )
    schema = _schema(span)
    return ray.data.ReadTask(partial(_read, span), metadata, schema=schema, per_task_row_limit=row_limit)


def _read(span: DecodedSpan) -> Iterator[pa.Table]:
    """Yield blocks; an empty one where no record is of the chosen kinds, since Ray wants one in any case."""
    empty = True
    for batch in span.read():
        empty = False
        yield pa.Table.from_batches([batch])
    if empty:
        yield _schema(span).empty_table()


def _schema(span: DecodedSpan) -> pa.Schema:
    columns = span.selection.columns
    assert columns is not None, "all blocks of a Ray dataset have the same columns"
    return decoded_schema(columns)


def read_flat_state(
    url: str,
    *,
    epoch: str = "latest",
    shard_ids: Collection[int] | None = None,
    kinds: Collection[str] | None = None,
    decode: bool = True,
    columns: Sequence[str] | None = None,
    strict: bool = False,
    verify: bool = False,
    on_driver: bool = False,
    **read_options: Any,
) -> ray.data.Dataset:
    """Read an exported epoch as a Ray dataset.

    Args:
        url: of the dataset, with or without ``dataset://``; one that `statecast export` or `statecast restore` wrote.
        epoch: ``latest``, a height or an id.
        shard_ids: all by default.
        kinds: names of kinds of records (`schemas.nearcore.trie_key.TrieKeyKind`); all by default. Files without them are not opened.
        decode: False gives keys and values as they are.
        columns: names of ``schemas.dataset.decoded_record.DECODED_SCHEMA``; by default those that the kinds have. Others are not computed.
        strict: raise on a record that does not decode, in place of noting it in the column ``decode_error``.
        verify: recompute every chosen shard's state root from the files first, on Ray, and compare it with the chain's.
        on_driver: read on the driver's machine only: for a dataset on its own disk, on a cluster.
        read_options: of ``ray.data.read_datasource``: concurrency, override_num_blocks, memory, …
    Raises:
        InvalidInputError: an unknown kind or column, or Ray Data is not installed.
        EpochNotReadyError: no such epoch or shard in the dataset.
        DatasetError: no dataset is there, or it can't be read.
        StateRootMismatchError: with ``verify``.
    """
    selection = select(kinds, columns, decode, strict)
    shards = chosen_shards(url, epoch, shard_ids or ())
    if verify:
        _prove_roots(shards)
    return ray.data.read_datasource(FlatStateDatasource(shards, selection, on_driver), **read_options)


def _prove_roots(shards: Sequence[ShardDataset]) -> None:
    executor = RayExecutor()
    try:
        prove_roots(StageRunner(executor, SilentProgress()), choose_kernel("auto"), shards)
    finally:
        executor.close()
