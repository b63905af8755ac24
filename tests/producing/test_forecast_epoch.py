"""The forecast of a run: when parts are out, and what limits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.producing.forecast.epoch_shape import EpochShape, epoch_shape
from pipelines.producing.forecast.forecast_epoch import Cluster, Limit, forecast_epoch, node_disk_bytes
from pipelines.producing.forecast.stage_costs import FLAT_STATE_RATIO, GIB, StageCosts, stage_costs_from_benchmark
from schemas.errors import InvalidInputError

MAINNET = epoch_shape(9, 180 * GIB, round(38.8 * GIB))


def test_mainnets_largest_shard_has_the_parts_that_nearcore_makes() -> None:
    """38.8 GiB are 1,325 parts of 30 MiB, and all nine shards have some 6,000."""
    assert MAINNET.num_parts[0] == 1325
    assert 6000 < sum(MAINNET.num_parts) < 6300
    assert MAINNET.memory_usage == 180 * GIB


@pytest.mark.parametrize(("shards", "memory_usage", "largest"), [(0, 1, None), (3, 0, None), (3, 300, 99), (3, 300, 301), (1, 300, 200)])
def test_an_epoch_that_can_not_be_is_refused(shards: int, memory_usage: int, largest: int | None) -> None:
    """A largest shard below the mean, or above the whole, is no epoch."""
    with pytest.raises(InvalidInputError):
        epoch_shape(shards, memory_usage, largest)


def test_more_cores_never_take_longer_and_never_less_than_the_work_divided() -> None:
    """The last part comes earlier with each doubling, but not earlier than perfect division allows."""
    costs = StageCosts()
    ends = []
    for cores in (8, 16, 32, 64, 128, 256):
        forecast = forecast_epoch(MAINNET, costs, Cluster(worker_cores=cores))
        part_work_s = (costs.structure_s + costs.boundaries_s + costs.build_s + costs.publish_s) * 180
        assert forecast.last_part_s >= part_work_s / cores
        assert forecast.first_part_s <= forecast.exported_s < forecast.last_part_s
        ends.append(forecast.last_part_s)
    assert ends == sorted(ends, reverse=True)


def test_a_slow_disk_is_named_as_the_limit_of_the_export() -> None:
    """A disk of 50 MB/s needs 180 GiB x 0.69 / 50 MB/s, whatever the cores."""
    forecast = forecast_epoch(MAINNET, StageCosts(), Cluster(worker_cores=64, node_disk_bytes_per_s=50e6))
    assert forecast.limits[0][0] is Limit.NODE_DISK
    assert forecast.exported_s == pytest.approx(180 * GIB * 0.69 / 50e6, rel=0.05)


def test_parts_that_wait_for_their_root_come_later() -> None:
    """Without a State column all shards are exported, and the largest one hashed, before the first part is out."""
    early, late = (forecast_epoch(MAINNET, StageCosts(), Cluster(worker_cores=64), early=early) for early in (True, False))
    assert early.first_part_s < late.exported_s < late.first_part_s
    assert late.exported_s < early.exported_s


def test_one_part_on_many_cores_is_limited_by_its_number_of_tasks() -> None:
    """A shard of one part gains nothing from a second core."""
    small = EpochShape((20 << 20,))
    one, many = (forecast_epoch(small, StageCosts(), Cluster(worker_cores=cores)) for cores in (1, 64))
    assert one.last_part_s == pytest.approx(many.last_part_s)
    assert {stage.limit for stage in many.stages if stage.stage == "publish"} == {Limit.TASKS}


def test_a_forecast_is_the_same_for_the_same_seed() -> None:
    """Its tasks' spread is drawn from the seed alone."""
    cluster = Cluster(worker_cores=64)
    assert forecast_epoch(MAINNET, StageCosts(), cluster, 1) == forecast_epoch(MAINNET, StageCosts(), cluster, 1)
    assert forecast_epoch(MAINNET, StageCosts(), cluster, 1) != forecast_epoch(MAINNET, StageCosts(), cluster, 2)


def test_costs_are_taken_from_what_the_benchmark_prints() -> None:
    """Seconds of its run on one core, a GiB of memory usage."""
    stages = {"export": 2.0, "values": 0.5, "structure": 0.1, "boundaries": 0.1, "build": 1.0, "seal": 0.01, "publish": 3.0}
    document = {"memory_usage": GIB // 2, "scaling": [{"cores": 2, "stages": {}}, {"cores": 1, "stages": stages}]}
    costs = stage_costs_from_benchmark(document, "here")
    assert (costs.export_s, costs.publish_s, costs.seal_s) == (4.0, 6.0, 0.02)


@pytest.mark.parametrize(
    "document",
    [None, [], {}, {"memory_usage": 0, "scaling": []}, {"memory_usage": 5, "scaling": [{"cores": 1, "stages": {"export": True}}]}],
)
def test_what_is_no_benchmark_is_refused(document: object) -> None:
    """Missing runs, missing stages and numbers that are none."""
    with pytest.raises(InvalidInputError):
        stage_costs_from_benchmark(document, "here")


@pytest.mark.parametrize("early", [True, False])
def test_without_a_dataset_the_source_is_needed_until_the_last_part(early: bool) -> None:
    """Nothing is exported, every stage that reads waits for the node's cores and disk, and its tables are read once or twice more."""
    shape, costs = epoch_shape(3, 9 * GIB), StageCosts()
    cluster = Cluster(worker_cores=64, node_cores=8)
    exported, direct = (forecast_epoch(shape, costs, cluster, early=early, direct=way) for way in (False, True))
    assert "export" not in {stage.stage for stage in direct.stages}
    assert direct.exported_s >= direct.last_part_s > exported.exported_s
    slower = forecast_epoch(shape, costs, replace(cluster, node_disk_bytes_per_s=10e6), early=early, direct=True)
    assert slower.last_part_s > direct.last_part_s
    readings = [node_disk_bytes(shape, costs, early=early, direct=way) for way in (False, True)]
    assert readings[1] - readings[0] == pytest.approx((1 if early else 2) * 9 * GIB * FLAT_STATE_RATIO, rel=1e-6)
