"""Made-up states of several shards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import synthetic_state as states
from benchmarks.synthetic_records import RECORDS_MIN, synthetic_records
from benchmarks.synthetic_state import RECORDS_PER_SHARD_MIN, SyntheticState, shard_records, synthetic_state
from pipelines.near.node.flat_state_source import KeyRange
from pipelines.near.node.node_store import NodeSource

RECORDS, SHARDS = 7_000, 3


def _keys(state: SyntheticState) -> list[list[bytes]]:
    source = NodeSource(str(state.home), state.context)
    return [
        [key for batch in source.records(shard, KeyRange(b"", None), 1 << 20) for key in batch["key"].to_pylist()]
        for shard in state.context.shards
    ]


@pytest.mark.parametrize("shards", [1, 2, 3, 5, 8, 9, 64])
def test_every_record_belongs_to_a_shard_and_the_last_is_the_largest(shards: int) -> None:
    """Sizes are unequal, and none is below what a state needs."""
    counts = shard_records(shards * RECORDS_PER_SHARD_MIN, shards)
    assert len(counts) == shards and sum(counts) == shards * RECORDS_PER_SHARD_MIN
    assert counts[-1] == max(counts) and min(counts) >= RECORDS_MIN
    assert len(set(counts)) == shards


def test_the_largest_of_eight_shards_has_a_quarter() -> None:
    """As mainnet's largest has about a fifth."""
    assert shard_records(1_000_000, 8)[-1] == pytest.approx(250_000, abs=8)


def test_shards_hold_their_records_each_its_own(tmp_path: Path) -> None:
    """Every shard's flat state is read back in its number, with keys that no other has."""
    keys = _keys(synthetic_state(tmp_path, RECORDS, shards=SHARDS))
    assert [len(one) for one in keys] == list(shard_records(RECORDS, SHARDS))
    # Two rows have the same key in every shard: the queues' indices.
    assert len(set().union(*map(set, keys))) > RECORDS - 2 * RECORDS_MIN


def test_a_state_that_was_stopped_goes_on_with_the_shard_it_was_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards that are complete are not made again, and the end is the same."""
    made: list[int] = []
    real = synthetic_records

    def stopping(records: int, seed: int) -> Iterator[tuple[bytes, bytes]]:
        made.append(records)
        for number, row in enumerate(real(records, seed)):
            if len(made) == 2 and number == 500:
                raise KeyboardInterrupt
            yield row

    counts = shard_records(RECORDS, SHARDS)
    with monkeypatch.context() as patch:
        patch.setattr(states, "synthetic_records", stopping)
        with pytest.raises(KeyboardInterrupt):
            synthetic_state(tmp_path / "stopped", RECORDS, shards=SHARDS)
        state = synthetic_state(tmp_path / "stopped", RECORDS, shards=SHARDS)
    # The first shard's records are asked for again, lazily, and none of them is made.
    assert made == [counts[0], counts[1], counts[1], counts[2]]
    assert _keys(state) == _keys(synthetic_state(tmp_path / "whole", RECORDS, shards=SHARDS))
    assert not list(state.home.glob("staging*"))
