"""What a month of epochs costs: objects, requests, storage, traffic and machines, each an amount times a price."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.producing.forecast.epoch_shape import EpochShape
from pipelines.producing.forecast.forecast_epoch import Cluster, EpochForecast
from pipelines.producing.forecast.price_list import PriceList
from pipelines.producing.forecast.requests import epoch_requests, published_objects
from pipelines.producing.forecast.stage_costs import GIB, StageCosts

DAYS_A_MONTH = 365.25 / 12


@dataclass(frozen=True, slots=True)
class EpochAmounts:
    """What one epoch leaves and asks for."""

    objects: int
    """Published, and kept as long as the epoch."""
    stored_bytes: int
    write_requests: int
    """With those of the dataset and the work folder, which are removed in the end."""
    read_requests: int
    read_bytes: int
    """What those fetch, dataset and work folder being read by ranges."""
    work_bytes: int
    """Most bytes of dataset and work folder."""


@dataclass(frozen=True, slots=True)
class BillItem:
    """One line."""

    name: str
    amount: float
    unit: str
    price: float
    """Of one unit."""

    @property
    def cost(self) -> float:
        """Amount times price."""
        return self.amount * self.price


def epoch_amounts(shape: EpochShape, costs: StageCosts, *, early: bool = True, headers: bool = True, direct: bool = False) -> EpochAmounts:
    """Return what one epoch leaves and asks for.

    Args:
        early: parts are published before their shard is complete.
        headers: the source has each shard's state header.
        direct: no dataset is written.
    """
    requests = epoch_requests(shape, costs, early=early, headers=headers, direct=direct)
    # Parts that wait for their shard's root leave their interiors until the epoch is published.
    work_ratio = costs.edges_ratio if direct else costs.dataset_ratio + (0 if early else costs.decoded_ratio)
    return EpochAmounts(
        objects=published_objects(shape, headers=headers),
        stored_bytes=int(shape.memory_usage * costs.stored_ratio),
        write_requests=requests.writes,
        read_requests=round(requests.reads),
        read_bytes=round(requests.read_bytes),
        work_bytes=int(shape.memory_usage * work_ratio),
    )


def monthly_bill(
    shape: EpochShape,
    costs: StageCosts,
    cluster: Cluster,
    forecast: EpochForecast,
    prices: PriceList,
    *,
    epochs_per_day: float,
    epochs_kept: int,
    egress_gib: float,
) -> tuple[BillItem, ...]:
    """Return the lines of a month's bill.

    Args:
        egress_gib: what readers fetch in a month.
    """
    epochs = epochs_per_day * DAYS_A_MONTH
    amounts = epoch_amounts(shape, costs)
    run_s = forecast.last_part_s
    work_gib = amounts.work_bytes / GIB * min(1.0, run_s * epochs_per_day / 86_400)
    fetched_requests = egress_gib * GIB / max(amounts.stored_bytes / max(sum(shape.num_parts), 1), 1)
    # Worker machines are there for the whole run, its start included: between two shards there is no time to give them back.
    worker_h = run_s / 3600 * cluster.workers * cluster.cores_per_worker * epochs
    return (
        BillItem("storage, epochs kept", amounts.stored_bytes / GIB * epochs_kept, "GiB month", prices.storage_gib_month),
        BillItem("storage, work", work_gib, "GiB month", prices.storage_gib_month),
        BillItem("write requests", amounts.write_requests * epochs / 1000, "thousand", prices.write_requests_1000),
        BillItem("read requests", (amounts.read_requests * epochs + fetched_requests) / 1000, "thousand", prices.read_requests_1000),
        BillItem("egress", egress_gib, "GiB", prices.egress_gib),
        BillItem("worker cores", worker_h, "core hours", prices.worker_core_hour),
        BillItem("head", run_s / 3600 * epochs, "hours", prices.head_hour),
    )
