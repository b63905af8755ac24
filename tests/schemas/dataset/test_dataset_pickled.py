"""A shard's summary is pickled once for all tasks that carry it, and each of them gets what was sent."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

from schemas.dataset.dataset_summary import DatasetShard, RecordsFile, ValuesFile
from schemas.ids import CryptoHash, ShardUId
from schemas.nearcore.epoch_context import EpochContext, ShardContext


def _shard(files: int) -> DatasetShard:
    one = CryptoHash(bytes(32))
    context = EpochContext("test", 1, one, one, 82, (ShardContext(ShardUId(3, 0), None, one),))
    return DatasetShard(
        context=context,
        source="a node",
        fingerprint="f",
        files=tuple(RecordsFile(f"{index}", 10, "00", bytes([index]), bytes([index, 1]), (5, 6), 7) for index in range(files)),
        values_files=(ValuesFile("values", 1, "00", 1, 1, (bytes(32),)),),
        memory_usage=9,
    )


def test_what_is_pickled_comes_back() -> None:
    """Every field arrives, of one summary and of another that was pickled between."""
    first, second = _shard(2), replace(_shard(3), verified_state_root=CryptoHash(bytes([1]) * 32))
    sent = [pickle.dumps(shard) for shard in (first, second, first)]
    assert [pickle.loads(data) for data in sent] == [first, second, first]
    assert copy.deepcopy(second) == second


def test_one_summary_is_pickled_once() -> None:
    """The tasks of a stage share the bytes, so that sending one more of them costs a copy alone."""
    shard = _shard(2)
    assert shard.__reduce__()[1][0] is shard.__reduce__()[1][0]


def test_one_summary_is_unpickled_once() -> None:
    """Tasks that arrive one by one share the summary."""
    shard = _shard(2)
    assert pickle.loads(pickle.dumps(shard)) is pickle.loads(pickle.dumps(shard))
