"""Record batches of bounded size."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipelines.near.record_batches import bounded
from schemas.dataset.flat_state import VALUE_SCHEMA

ROW_BYTES = 40


def batch(values: list[bytes]) -> pa.RecordBatch:
    """Return a batch of values under a hash of zeros."""
    hashes = pa.array([bytes(32)] * len(values), pa.binary(32))
    # Cut from a longer array, so that its buffers begin with rows of another batch.
    return pa.RecordBatch.from_arrays(
        [pa.concat_arrays([hashes, hashes]), pa.array(values + values, pa.binary())], schema=VALUE_SCHEMA
    ).slice(len(values))


@given(st.lists(st.lists(st.binary(max_size=300), max_size=20), max_size=6), st.integers(1, 2000))
def test_rows_are_kept_in_order_and_batches_bounded(groups: list[list[bytes]], limit: int) -> None:
    """Nothing is lost or moved, no batch is empty, and only single rows are over the limit."""
    batches = list(bounded([batch(values) for values in groups], limit))
    assert [value for found in batches for value in found["value"].to_pylist()] == [value for values in groups for value in values]
    for found in batches:
        size = sum(len(value) + ROW_BYTES for value in found["value"].to_pylist())
        assert found.num_rows == 1 or size <= limit
        assert found.num_rows > 0


@given(st.integers(1, 400))
def test_batches_are_filled(count: int) -> None:
    """Small rows come in as few batches as the limit allows."""
    batches = list(bounded([batch([b"x" * 10])] * count, 1000))
    assert len(batches) == -(-count // 20)
