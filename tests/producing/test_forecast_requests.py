"""What the forecast counts of objects and requests, held against a real chain's epoch with state headers and tries."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.counting_store import WRITES, count_calls, counted_calls, requests, stop_counting
from pipelines.near.epoch.node_context import epoch_context_from_node
from pipelines.near.node.node_store import NodeSource
from pipelines.producing.forecast import value_reads
from pipelines.producing.forecast.bill import epoch_amounts
from pipelines.producing.forecast.epoch_shape import EpochShape, epoch_shape
from pipelines.producing.forecast.requests import EPOCH_OBJECTS, epoch_requests, published_objects
from pipelines.producing.forecast.stage_costs import GIB, StageCosts
from tests.support.nodes import localnet_home
from tests.support.whole_productions import WholeProduction

MAINNET = epoch_shape(9, 180 * GIB, round(38.8 * GIB))


@pytest.mark.parametrize(("early", "direct"), [(True, False), (False, False), (True, True), (False, True)])
def test_an_epoch_with_headers_leaves_and_writes_what_is_forecast(tmp_path: Path, early: bool, direct: bool) -> None:
    """Objects below the epoch's folder, and all writes but those of the claim, which this production does not take."""
    context = epoch_context_from_node(localnet_home(), "6")
    production = WholeProduction(
        tmp_path, context, NodeSource(str(localnet_home()), context), publish_early=early, write_dataset=not direct
    )
    count_calls(by_ranges=False)
    try:
        before = counted_calls()
        result = production.run()
        calls = counted_calls() - before
    finally:
        stop_counting()
    shape = EpochShape(tuple(sorted((shard.memory_usage for shard in result.shards), reverse=True)))
    (epoch,) = production.published.rglob("epoch_id=*")
    assert published_objects(shape, headers=True) == sum(path.is_file() for path in epoch.rglob("*"))
    forecast = epoch_requests(shape, StageCosts(), early=early, headers=True, direct=direct).writes
    # The claim is put and swapped once each; dataset and work folder of each shard stay, so they are not listed; a first catalogue lists.
    kept = 2 + 2 * len(result.shards) - 1
    assert requests(calls, WRITES) == forecast - kept


def test_a_shard_without_parts_has_no_torrent() -> None:
    """An empty shard is published with its statement alone."""
    assert published_objects(EpochShape((1 << 20, 0)), headers=False) == 1 + 2 + 1 + EPOCH_OBJECTS


def test_a_larger_state_asks_for_more_of_everything() -> None:
    """Objects and writes grow with the parts, and so do reads but for those of shared values."""
    small, large = (epoch_amounts(epoch_shape(8, size), StageCosts()) for size in (80 * GIB, 800 * GIB))
    assert large.objects / small.objects == pytest.approx(10, rel=0.02)
    assert large.write_requests / small.write_requests == pytest.approx(10, rel=0.02)
    shared = [value_reads.SHARED_PER_PART_GIB * size for size in (80, 800)]
    assert large.read_requests - shared[1] < 10 * small.read_requests


def test_what_parts_read_of_values_is_bounded_by_what_they_refer_to() -> None:
    """Shared values cost at most a read each, however large the shard; own values no more reads a part in a larger one."""
    for gib in (1, 10, 100, 1000, 10_000):
        (num_parts,) = EpochShape((gib * GIB,)).num_parts
        found = value_reads.value_reads(gib * GIB, num_parts, StageCosts())
        assert found.reads < value_reads.SHARED_PER_PART_GIB * gib + 2 * num_parts
        assert found.waits <= found.reads


def test_parts_that_wait_leave_their_interiors() -> None:
    """The late way writes an interior a part more, and needs room for all of them."""
    early, late = (epoch_amounts(MAINNET, StageCosts(), early=early) for early in (True, False))
    assert late.write_requests - early.write_requests == sum(MAINNET.num_parts)
    assert late.objects == early.objects
    assert late.work_bytes - early.work_bytes == pytest.approx(MAINNET.memory_usage * StageCosts().decoded_ratio, abs=2)
