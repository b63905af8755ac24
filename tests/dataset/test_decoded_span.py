"""Which files and rows a scan reads."""

from __future__ import annotations

import pickle

import pytest

from pipelines.dataset.arrow_dataset import ShardDataset
from pipelines.dataset.tables.decoded_span import decoded_spans, select
from pipelines.dataset.tables.export_tables import chosen_shards
from schemas.errors import InvalidInputError
from tests.support.exported import exported_localnet


def one_shard() -> ShardDataset:
    """Return a shard of the localnet."""
    (shard,) = chosen_shards(str(exported_localnet()), shard_ids=[1])
    return shard


@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_spans_cover_each_record_once_in_key_order(pieces: int) -> None:
    """However a file is cut; it is not cut within a record batch."""
    keys = [row["key"] for span in decoded_spans(one_shard(), select(), pieces) for batch in span.read() for row in batch.to_pylist()]
    assert len(keys) == one_shard().summary.records
    assert keys == sorted(set(keys))


def test_a_span_takes_little_room_and_crosses_processes() -> None:
    """Of the dataset, its one file alone goes with it."""
    (span,) = decoded_spans(one_shard(), select(kinds=["account"]))
    again = pickle.loads(pickle.dumps(span))
    assert again == span
    assert sum(batch.num_rows for batch in again.read()) == sum(batch.num_rows for batch in span.read()) > 0
    assert len(pickle.dumps(span)) < 4000


def test_raw_records_are_read_without_decoding() -> None:
    """Keys and values as they are in the dataset."""
    (span,) = decoded_spans(one_shard(), select(decode=False))
    rows = [row for batch in span.read() for row in batch.to_pylist()]
    assert list(rows[0]) == ["shard_uid", "key", "value", "value_length", "value_hash"]
    assert [row["key"] for row in rows] == [key for batch in one_shard().read_file(0) for key in batch.column("key").to_pylist()]


@pytest.mark.parametrize("wrong", [{"kinds": ["accounts"]}, {"columns": ["balance"]}, {"columns": []}])
def test_unknown_kinds_and_columns_are_named(wrong: dict[str, list[str]]) -> None:
    """With those that there are."""
    with pytest.raises(InvalidInputError, match="There are "):
        select(**wrong)  # type: ignore[arg-type]
