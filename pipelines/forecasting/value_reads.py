"""What the parts of a shard read of its referenced values, where these lie in a bucket.

A dataset's values are sorted by hash, so those of one part lie anywhere among the shard's: the larger the shard, the more files and record
batches a part touches. They are read from several files at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipelines.forecasting.stage_costs import GIB, StageCosts

VALUES_TASK_BYTES = 32 << 20
"""Bytes of referenced values that one task copies, into one file: `pipelines.stages.export.VALUES_TASK_BYTES_TARGET`."""

VALUES_BATCH_BYTES = 512 << 10
"""A record batch of referenced values: `pipelines.stages.export.VALUES_BATCH_BYTES_MAX`."""

READ_AHEAD_BYTES = 640 << 10
"""What a read by ranges fetches at least: `pipelines.stores.ranges.READ_AHEAD_BYTES`."""

FILES_READ_AT_ONCE = 16
"""Files that a part's values are read from at once: `pipelines.sources.arrow_dataset.VALUES_FILES_READ_AT_ONCE`."""

VALUES_SHARE = 0.16
"""Share of referenced values in a dataset's bytes, as measured."""

VALUES_PER_GIB = 13_300
"""Referenced values a GiB of memory usage, as measured."""

VALUE_PARTS_SHARE = 0.5
"""Share of the parts that refer to any value: contract data and codes lie together. Nearer to 1 in shards of a few parts."""

OPEN_READS = 3
"""Of a file that is read by ranges: its size, and twice its footer."""


@dataclass(frozen=True, slots=True)
class ValueReads:
    """Of all parts of a shard together."""

    reads: float
    size: float
    """Bytes."""


def value_reads(memory_usage: int, num_parts: int, costs: StageCosts) -> ValueReads:
    """Return the requests and bytes of a shard's parts for referenced values."""
    values_bytes = memory_usage * costs.dataset_ratio * VALUES_SHARE
    files_there = math.ceil(values_bytes / VALUES_TASK_BYTES)
    batches_there = math.ceil(values_bytes / VALUES_BATCH_BYTES)
    referring = num_parts * VALUE_PARTS_SHARE
    if not referring or not files_there:
        return ValueReads(0.0, 0.0)
    values = memory_usage / GIB * VALUES_PER_GIB / referring
    files = files_there * -math.expm1(-values / files_there)
    batches = batches_there * -math.expm1(-values / batches_there)
    dense = batches / batches_there
    # What is read ahead holds a batch; in a row with others less of it is for nothing.
    reads = files * OPEN_READS + batches
    batch_bytes = values_bytes / batches_there
    size = batches * (batch_bytes + max(READ_AHEAD_BYTES - batch_bytes, 0) * (1 - dense))
    return ValueReads(reads * referring, size * referring)
