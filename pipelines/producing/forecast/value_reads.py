"""How many values a shard's dataset has, and what its parts read of them where they lie in a bucket.

Own values, which one record refers to, lie in the order of the records: a part finds its own in adjacent record batches. Shared values lie
by hash: a part reads at most once for each of them, and fewer times where they are close together. So what a part reads does not go with
the size of its shard, once the shard's shared values are many more than the part's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipelines.dataset.export.export_values import (
    OWN_VALUES_BATCH_BYTES_MAX,
    SHARED_VALUES_BATCH_BYTES_MAX,
    SHARING_TASK_REFERENCES,
    VALUES_TASK_BYTES_TARGET,
)
from pipelines.dataset.referenced_values import VALUES_GAP_BYTES_MAX, VALUES_READ_BYTES_MAX, VALUES_READS_AT_ONCE
from pipelines.producing.forecast.stage_costs import GIB, StageCosts

VALUES_SHARE = 0.16
"""Share of referenced values in a dataset's bytes, as measured."""

SHARED_SHARE = 0.30
"""Share of shared values in the bytes of referenced values, as measured: contract codes of four accounts each."""

REFERENCES_PER_GIB = 14_900
"""Records that refer to a value, a GiB of memory usage, as measured."""

SHARED_MEMORY_USAGE_MIN = 640 << 10
"""A smaller state hardly has equal values."""

SHARED_PER_PART_GIB = 1_980
"""Shared values that the parts refer to, each once a part, a GiB of memory usage, as measured."""

OWN_PARTS_SHARE = 0.42
"""Share of the parts that refer to own values, as measured: these lie together."""

SHARED_PARTS_SHARE = 0.16
"""Share of the parts that refer to shared values, as measured: contract codes lie together."""


@dataclass(frozen=True, slots=True)
class DatasetValues:
    """What a shard's dataset has of values."""

    own_bytes: float
    own_files: int
    shared_bytes: float
    shared_files: int
    sharing_tasks: int

    @classmethod
    def of(cls, memory_usage: int, ranges: int, costs: StageCosts) -> DatasetValues:
        """Reckon them.

        Args:
            ranges: that the shard is exported in; each ends its last file, full or not.
        """
        size = memory_usage * costs.dataset_ratio * VALUES_SHARE
        shared_bytes = size * SHARED_SHARE if memory_usage >= SHARED_MEMORY_USAGE_MIN else 0.0
        own_bytes = size - shared_bytes
        return cls(
            own_bytes=own_bytes,
            own_files=math.ceil(own_bytes / VALUES_TASK_BYTES_TARGET) + int(ranges * OWN_PARTS_SHARE),
            shared_bytes=shared_bytes,
            shared_files=math.ceil(shared_bytes / VALUES_TASK_BYTES_TARGET),
            sharing_tasks=math.ceil(memory_usage / GIB * REFERENCES_PER_GIB / SHARING_TASK_REFERENCES),
        )


@dataclass(frozen=True, slots=True)
class ValueReads:
    """Of all parts of a shard together."""

    reads: float
    size: float
    """Bytes."""
    waits: float = 0.0
    """Reads that follow one another; those of several readers at once count as one."""
    wait_bytes: float = 0.0
    """Bytes that follow one another, in the same way."""

    @classmethod
    def of_parts(cls, parts: float, reads: float, size: float) -> ValueReads:
        """Return what so many parts read, of which each takes these bytes, and about these reads, but at least one."""
        reads = max(reads, 1.0)
        at_once = min(reads, VALUES_READS_AT_ONCE)
        return cls(reads * parts, size * parts, reads / at_once * parts, size / at_once * parts)

    def __add__(self, other: ValueReads) -> ValueReads:
        return ValueReads(self.reads + other.reads, self.size + other.size, self.waits + other.waits, self.wait_bytes + other.wait_bytes)


def value_reads(memory_usage: int, num_parts: int, costs: StageCosts) -> ValueReads:
    """Return the requests and bytes of a shard's parts for referenced values."""
    if not num_parts or not memory_usage:
        return ValueReads(0.0, 0.0)
    values = DatasetValues.of(memory_usage, 1, costs)
    return _own_reads(values, num_parts) + _shared_reads(values, num_parts, memory_usage)


def _own_reads(values: DatasetValues, num_parts: int) -> ValueReads:
    parts = max(1.0, num_parts * OWN_PARTS_SHARE)
    # A part's first and last batch hold values of its neighbours too.
    size = min(values.own_bytes, values.own_bytes / parts + OWN_VALUES_BATCH_BYTES_MAX)
    return ValueReads.of_parts(parts, 0.5 + size / VALUES_READ_BYTES_MAX, size)


def _shared_reads(values: DatasetValues, num_parts: int, memory_usage: int) -> ValueReads:
    if not values.shared_bytes:
        return ValueReads(0.0, 0.0)
    parts = max(1.0, num_parts * SHARED_PARTS_SHARE)
    there = math.ceil(values.shared_bytes / SHARED_VALUES_BATCH_BYTES_MAX)
    wanted = memory_usage / GIB * SHARED_PER_PART_GIB / parts
    dense = -math.expm1(-wanted / there)
    bridged = VALUES_GAP_BYTES_MAX // SHARED_VALUES_BATCH_BYTES_MAX
    # A read ends where the next wanted batch is too far; what lies between nearer ones is read along.
    ends = dense * (1 - dense) ** (bridged + 1) * there
    between = sum(batches * dense**2 * (1 - dense) ** batches for batches in range(1, bridged + 1)) * there
    size = (dense * there + between) * values.shared_bytes / there
    return ValueReads.of_parts(parts, 0.5 + max(ends, size / VALUES_READ_BYTES_MAX), size)
