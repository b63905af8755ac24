"""``statecast plan``: what publishing a chain's epochs takes and costs, worked out from measured costs."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.epoch_input import InputOptions
from jobs.option_groups import Without
from jobs.options import Json, RunOptions, parse_duration_s
from jobs.terminal import coloured, format_bytes, format_seconds, open_console, open_table, print_json
from pipelines.producing.forecast.bill import BillItem, EpochAmounts, epoch_amounts, monthly_bill
from pipelines.producing.forecast.epoch_shape import EpochShape, epoch_shape
from pipelines.producing.forecast.forecast_epoch import Cluster, EpochForecast, forecast_epoch
from pipelines.producing.forecast.price_list import PRICE_LIST_BYTES_MAX, PriceList
from pipelines.producing.forecast.stage_costs import GIB, StageCosts, stage_costs_from_benchmark
from pipelines.producing.preflight.look import run_size
from pipelines.stores.regular_file import open_regular
from schemas.errors import InvalidInputError
from schemas.json_limits import JsonLimits

SHARDS, STATE_GIB = 9, 180.0
"""What is taken for an epoch where nothing is said of it: mainnet's, about."""

CORES_MAX = 4096
"""Most worker cores that are tried to meet a deadline."""

COSTS_BYTES_MAX = 16 << 20
"""Most bytes that are read of a file of measured costs."""

_STATE = "What there is to publish"
_CLUSTER = "What it runs on"
_COST = "What it costs"


def plan(
    *,
    epochs_per_day: Annotated[float, typer.Option(min=0.01, max=10_000, help="Epochs a day.", rich_help_panel=_STATE)] = 3.4,
    given: Annotated[InputOptions, Without("read_limit")],
    shards: Annotated[
        int | None, typer.Option(min=1, help="Shards an epoch. Default: 9, or those of the node.", rich_help_panel=_STATE)
    ] = None,
    state_gib: Annotated[
        float | None,
        typer.Option(help="Memory usage of all shards together, GiB. Default: 180, or that of the node's shards.", rich_help_panel=_STATE),
    ] = None,
    largest_gib: Annotated[
        float | None, typer.Option(help="Memory usage of the largest shard, GiB. Default: all alike.", rich_help_panel=_STATE)
    ] = None,
    keep_epochs: Annotated[int, typer.Option(min=1, help="Epochs that stay published.", rich_help_panel=_STATE)] = 5,
    egress_gib: Annotated[float, typer.Option(min=0, help="What readers fetch in a month, GiB.", rich_help_panel=_STATE)] = 0,
    deadline: Annotated[str, typer.Option(help="When the last part must be out, after the snapshot.", rich_help_panel=_CLUSTER)] = "1h",
    cores: Annotated[
        int | None,
        typer.Option(min=1, max=CORES_MAX, help="Worker cores. Default: as few as meet the deadline.", rich_help_panel=_CLUSTER),
    ] = None,
    cores_per_worker: Annotated[int, typer.Option(min=1, max=1024, help="Cores of a worker machine.", rich_help_panel=_CLUSTER)] = 8,
    node_cores: Annotated[
        int, typer.Option(min=1, max=4096, help="Cores beside the node's disk for the export.", rich_help_panel=_CLUSTER)
    ] = 16,
    node_disk_mb_per_s: Annotated[
        float, typer.Option(min=1, help="What the node's disk gives the export, MB/s.", rich_help_panel=_CLUSTER)
    ] = 1000,
    start: Annotated[str, typer.Option(help="What machines and Ray take to start, each epoch.", rich_help_panel=_CLUSTER)] = "3m",
    prices: Annotated[Path | None, typer.Option(help="TOML file of prices; examples/prices.toml shows one.", rich_help_panel=_COST)] = None,
    costs: Annotated[
        Path | None,
        typer.Option(
            help="Measured costs: what `python -m benchmarks.produce --cores 1 --json` printed. Default: those of docs/benchmarks.md.",
            rich_help_panel=_COST,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell what publishing takes before it is built: objects, requests, storage, traffic, machine hours, and whether the deadline is met.

    With --node-home or --from the shards' sizes are read there. Nothing else is read but the files named. Times come from a simulation of the run's stages, task by task, with measured costs.

    Example: `statecast plan --epochs-per-day 3 --shards 9 --state-gib 180 --largest-gib 38.8 --egress-gib 2000 --prices prices.toml`

    `statecast plan --node-home ~/.near --prices prices.toml`
    """
    for option, value in (
        ("--epochs-per-day", epochs_per_day),
        ("--state-gib", state_gib or 0.0),
        ("--largest-gib", largest_gib or 0.0),
        ("--egress-gib", egress_gib),
        ("--node-disk-mb-per-s", node_disk_mb_per_s),
    ):
        if not math.isfinite(value * GIB):
            raise InvalidInputError(problem=f"{value} is no amount", where=option)
    if given.node_home is not None or given.source:
        if shards is not None or state_gib is not None or largest_gib is not None:
            raise InvalidInputError(
                problem="sizes are read from the source or given, not both", where="--shards, --state-gib, --largest-gib"
            )
        shape = _source_shape(given)
    else:
        state_bytes = round((STATE_GIB if state_gib is None else state_gib) * GIB)
        shape = epoch_shape(shards or SHARDS, state_bytes, None if largest_gib is None else round(largest_gib * GIB))
    measured = _read_costs(costs)
    price_list = None if prices is None else PriceList.parse(_read(prices, PRICE_LIST_BYTES_MAX), str(prices))
    deadline_s, start_s = parse_duration_s(deadline, "--deadline"), parse_duration_s(start, "--start")
    cluster = Cluster(
        worker_cores=cores or cores_per_worker,
        cores_per_worker=cores_per_worker,
        node_cores=node_cores,
        node_disk_bytes_per_s=node_disk_mb_per_s * 1e6,
        start_s=start_s,
    )
    if cores is None:
        cluster = _fewest_cores(shape, measured, cluster, deadline_s)
    forecast = forecast_epoch(shape, measured, cluster)
    amounts = epoch_amounts(shape, measured)
    bill = (
        ()
        if price_list is None
        else monthly_bill(
            shape,
            measured,
            cluster,
            forecast,
            price_list,
            epochs_per_day=epochs_per_day,
            epochs_kept=keep_epochs,
            egress_gib=egress_gib,
        )
    )
    currency = "" if price_list is None else price_list.currency
    if as_json:
        print_json(_to_json(shape, cluster, forecast, amounts, bill, currency, deadline_s))
    else:
        _print(shape, cluster, forecast, amounts, bill, currency, deadline_s)


def _source_shape(given: InputOptions) -> EpochShape:
    found = given.open(RunOptions())
    size = run_size(found)
    sizes = () if size is None else tuple(memory_usage for memory_usage in size.shape.memory_usages if memory_usage)
    if not sizes:
        raise InvalidInputError(
            problem="the source does not tell how large its shards are", where=found.describe(), remedy="Give --shards and --state-gib."
        )
    return EpochShape(sizes)


def _fewest_cores(shape: EpochShape, costs: StageCosts, cluster: Cluster, deadline_s: float) -> Cluster:
    """Return the cluster with the fewest worker machines that meets the deadline; the largest tried where none does."""

    def of(machines: int) -> Cluster:
        return replace(cluster, worker_cores=min(CORES_MAX, machines * cluster.cores_per_worker))

    machines_max = -(-CORES_MAX // cluster.cores_per_worker)
    too_few, tried = 0, 1
    while forecast_epoch(shape, costs, of(tried)).last_part_s > deadline_s:
        if tried == machines_max:
            return of(tried)
        too_few, tried = tried, min(machines_max, tried * 2)
    while tried - too_few > 1:
        middle = (too_few + tried) // 2
        if forecast_epoch(shape, costs, of(middle)).last_part_s > deadline_s:
            too_few = middle
        else:
            tried = middle
    return of(tried)


def _read_costs(path: Path | None) -> StageCosts:
    if path is None:
        return StageCosts()
    data = _read(path, COSTS_BYTES_MAX)
    too_much = JsonLimits(COSTS_BYTES_MAX).problem(data)
    if too_much is not None:
        raise InvalidInputError(problem=too_much, where=str(path))
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(problem=f"the measured costs are not JSON: {error}", where=str(path)) from None
    return stage_costs_from_benchmark(document, str(path))


def _read(path: Path, bytes_max: int) -> bytes:
    try:
        with open_regular(path.expanduser()) as file:
            return file.read(bytes_max + 1)
    except OSError as error:
        raise InvalidInputError(problem=f"the file can't be read: {error.strerror}", where=str(path)) from error


def _to_json(
    shape: EpochShape,
    cluster: Cluster,
    forecast: EpochForecast,
    amounts: EpochAmounts,
    bill: tuple[BillItem, ...],
    currency: str,
    deadline_s: float,
) -> dict[str, Any]:
    return {
        "message_type": "plan",
        "shards": [{"memory_usage": size, "num_parts": parts} for size, parts in zip(shape.memory_usages, shape.num_parts, strict=True)],
        "worker_cores": cluster.worker_cores,
        "worker_machines": cluster.workers,
        "objects_per_epoch": amounts.objects,
        "stored_bytes_per_epoch": amounts.stored_bytes,
        "write_requests_per_epoch": amounts.write_requests,
        "read_requests_per_epoch": amounts.read_requests,
        "exported_s": round(forecast.exported_s, 1),
        "first_part_s": round(forecast.first_part_s, 1),
        "last_part_s": round(forecast.last_part_s, 1),
        "deadline_s": deadline_s,
        "deadline_met": forecast.last_part_s <= deadline_s,
        "workers_busy": round(forecast.busy, 3),
        "limits": [{"limit": str(limit), "seconds": round(seconds, 1)} for limit, seconds in forecast.limits],
        "currency": currency,
        "bill_per_month": [
            {"item": item.name, "amount": round(item.amount, 3), "unit": item.unit, "price": item.price, "cost": round(item.cost, 2)}
            for item in bill
        ],
        "cost_per_month": round(sum(item.cost for item in bill), 2) if bill else None,
    }


def _print(
    shape: EpochShape,
    cluster: Cluster,
    forecast: EpochForecast,
    amounts: EpochAmounts,
    bill: tuple[BillItem, ...],
    currency: str,
    deadline_s: float,
) -> None:
    console = open_console()
    console.print(
        f"an epoch: {len(shape.memory_usages):,} shards, {format_bytes(shape.memory_usage)}, {sum(shape.num_parts):,} parts; "
        f"{amounts.objects:,} objects of {format_bytes(amounts.stored_bytes)} stay, {amounts.write_requests:,} writes, "
        f"{amounts.read_requests:,} reads",
        highlight=False,
    )
    console.print(
        f"on {cluster.worker_cores:,} worker cores, {cluster.cores_per_worker} a machine, and {cluster.node_cores} beside the node",
        highlight=False,
    )
    table = open_table(("after the snapshot", ""), left=("after the snapshot",))
    for name, seconds in (
        ("exported, the snapshot may go", forecast.exported_s),
        ("first part out", forecast.first_part_s),
        ("last part out", forecast.last_part_s),
    ):
        table.add_row(name, format_seconds(seconds))
    console.print(table)
    met = forecast.last_part_s <= deadline_s
    console.print(
        coloured(f"the deadline of {format_seconds(deadline_s)} is ", ("met", "green") if met else ("missed", "red"), "; the time goes to:")
    )
    for limit, seconds in forecast.limits:
        console.print(f"  {format_seconds(seconds)}: {limit}", highlight=False)
    if not bill:
        console.print("with --prices FILE it also tells the cost")
        return
    table = open_table(("item", "amount", "unit", "price", "cost"), left=("item", "unit"), title=f"a month, in {currency}")
    for item in bill:
        table.add_row(item.name, f"{item.amount:,.1f}", item.unit, f"{item.price:g}", f"{item.cost:,.2f}")
    table.add_section()
    table.add_row("together", "", "", "", f"{sum(item.cost for item in bill):,.2f}")
    console.print(table)
