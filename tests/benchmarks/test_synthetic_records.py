"""The made-up records: their number, order and mix."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.synthetic_records import ACCOUNTS_PER_CODE, kind_counts, synthetic_records
from benchmarks.synthetic_state import synthetic_state
from pipelines.near.node.flat_state_source import KeyRange
from pipelines.near.node.node_store import NodeSource
from schemas.nearcore.flat_state_limits import INLINED_VALUE_BYTES_MAX

RECORDS = 3_000


@pytest.fixture(scope="module")
def records() -> list[tuple[bytes, bytes]]:
    """Return one small state's records."""
    return list(synthetic_records(RECORDS, seed=1))


@pytest.mark.parametrize("count", [1_000, 1_001, 3_000, 20_011])
def test_exactly_as_many_records_as_asked_ascend_by_key(count: int) -> None:
    """Any number comes out exactly, strictly ascending."""
    keys = [key for key, _ in synthetic_records(count, seed=7)]
    assert len(keys) == count
    assert all(left < right for left, right in itertools.pairwise(keys))


def test_kinds_have_their_shares(records: list[tuple[bytes, bytes]]) -> None:
    """Each kind of record is there as often as the mix says."""
    counts = kind_counts(RECORDS)
    found = Counter(key[0] for key, _ in records)
    assert found == {
        0: counts.accounts,
        1: counts.contract_codes,
        2: counts.access_keys,
        7: counts.delayed_receipts,
        9: counts.contract_data,
        10: counts.promise_yield_indices,
    }


def test_accounts_share_contract_codes() -> None:
    """Several accounts have equal codes, so a referenced value is shared."""
    codes = Counter(value for key, value in synthetic_records(20_000, seed=1) if key[0] == 1)
    assert len(codes) == 20 / ACCOUNTS_PER_CODE
    assert max(codes.values()) >= ACCOUNTS_PER_CODE


def test_some_contract_data_is_too_long_to_be_inlined(records: list[tuple[bytes, bytes]]) -> None:
    """About one value of contract data in fifty is a reference."""
    data = [len(value) for key, value in records if key[0] == 9]
    assert 0.005 < sum(length > INLINED_VALUE_BYTES_MAX for length in data) / len(data) < 0.05


def test_a_seed_means_the_same_records_always() -> None:
    """What seed 1 gives is fixed, so that figures of different days are of the same state."""
    digest = hashlib.sha256()
    for key, value in synthetic_records(1_000, seed=1):
        digest.update(len(key).to_bytes(4, "little") + key + len(value).to_bytes(4, "little") + value)
    assert digest.hexdigest() == "b426b942cca69689c44cd8f127a997d066a6aae7d2415982f3f6d413483dfacf"
    assert list(synthetic_records(1_000, seed=2)) != list(synthetic_records(1_000, seed=1))


def test_a_node_source_reads_the_state_back(tmp_path: Path, records: list[tuple[bytes, bytes]]) -> None:
    """The database holds exactly the records, long values by reference."""
    state = synthetic_state(tmp_path, RECORDS, seed=1)
    source = NodeSource(str(state.home), state.context)
    shard = state.context.shards[0]
    batches = list(source.records(shard, KeyRange(b"", None), 1 << 20))
    found = {key: value for batch in batches for key, value in zip(batch["key"].to_pylist(), batch["value"].to_pylist(), strict=True)}
    hashes = {
        key: value_hash
        for batch in batches
        for key, value_hash in zip(batch["key"].to_pylist(), batch["value_hash"].to_pylist(), strict=True)
    }
    references = sorted({value_hash for value_hash in hashes.values() if value_hash is not None})
    values = {
        value_hash: value
        for batch in source.values(shard, references, 1 << 20)
        for value_hash, value in zip(*(column.to_pylist() for column in batch.columns), strict=True)
    }
    assert {key: values[hashes[key]] if value is None else value for key, value in found.items()} == dict(records)
    assert references


def test_a_state_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    """The second call finds the first one's state."""
    first = synthetic_state(tmp_path, 1_000, seed=1)
    made = (first.home / "data" / "CURRENT").stat().st_mtime_ns
    assert synthetic_state(tmp_path, 1_000, seed=1) == first
    assert (first.home / "data" / "CURRENT").stat().st_mtime_ns == made
