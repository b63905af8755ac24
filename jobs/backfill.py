"""``statecast backfill``: many epochs of one node, published as ``statecast produce`` publishes one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Annotated

import typer

from jobs.dataset_option import NO_DATASET, dataset_url, refuse_tables_without_dataset
from jobs.option_groups import Without
from jobs.options import Json, Plan, ReadLimit, RpcOptions, RunOptions, ShardIds, StateWalkOption, node_home_folder, open_executor
from jobs.preflight import NoPreflight, require_fit, workers_here
from jobs.produce import default_work_folder
from jobs.publish_options import PublishOptions
from jobs.terminal import coloured, format_bytes, format_seconds, open_console, open_progress, open_table, print_json
from pipelines.dataset.arrow_dataset import DATASET_SCHEME, ShardDataset, list_shards
from pipelines.execution.executor import Executor
from pipelines.execution.in_process import InProcessExecutor
from pipelines.execution.progress import Progress, SilentProgress
from pipelines.execution.stage_runner import StageRunner
from pipelines.keeping.collect_epochs import collect_epochs, thin_epoch
from pipelines.keeping.retention import NEVER_S, RetentionRule
from pipelines.kernel.choice import choose_kernel
from pipelines.near.node.read_limit import give_node_the_disk
from pipelines.near.trie.trie_walk_source import StateWalk
from pipelines.producing.backfill.backfill_epochs import WantedEpoch, find_node_epochs, parse_epoch_range
from pipelines.producing.backfill.backfill_node import PARALLEL_MAX, Backfill, NodeInput
from pipelines.producing.backfill.backfill_plan import OBJECTS_PER_EPOCH, PlannedStep, plan_backfill
from pipelines.producing.backfill.backfill_status import BackfillStatus, RecordsWay, Step, StepState
from pipelines.producing.epoch_input import EpochInput
from pipelines.producing.preflight.look import RunPlace
from pipelines.producing.produce_epoch import ProductionSettings
from pipelines.producing.publish.signing import Signer
from pipelines.producing.rebuild.rebuilt_epoch import EpochRebuild
from pipelines.stores.held_work_folder import held_work_folder, remove_dead_scratch
from schemas.errors import InvalidInputError, PartialResultError, StatecastError
from schemas.published.catalogue import EPOCHS_MAX
from schemas.published.object_layout import EpochLayout
from schemas.shown_text import shown_url


def backfill(
    *,
    node_home: Annotated[Path, typer.Option("--node-home", help="Home of the node, an archival one as a rule. Opened read-only.")],
    epochs: Annotated[str, typer.Option("--epochs", help="Epoch heights LO..HI, both included, or one height.")],
    publish: Annotated[PublishOptions, Without("web_seed"), Without("tracker")],
    source: Annotated[
        str | None,
        typer.Option("--from", help="dataset://URL of an older epoch's export: the first epoch is rolled forward from it."),
    ] = None,
    shard_id: ShardIds = None,
    rpc: RpcOptions,
    full_every: Annotated[
        int | None,
        typer.Option(
            "--full-every",
            min=1,
            help="Keep whole parts of epochs whose height is a multiple of this alone, and of the newest, as gc --full-every does: those of an epoch "
            "go when the next one is there. Needs --deltas. Default: whole parts of all.",
            show_default=False,
        ),
    ] = None,
    parallel: Annotated[int, typer.Option("--parallel", min=1, max=PARALLEL_MAX, help="Epochs that are worked on at once.")] = 1,
    roll_forward: Annotated[
        bool,
        typer.Option("--roll-forward/--no-roll-forward", help="Make an epoch out of the one before and what has changed, where possible."),
    ] = True,
    state_walk: StateWalkOption = StateWalk.AUTO,
    read_limit: ReadLimit = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            metavar="URL|none",
            help="Where the exported records go and stay. Default: in the work folder, while needed. none: write no dataset; each epoch is read "
            "from the node twice, and none is rolled forward.",
        ),
    ] = None,
    work: Annotated[
        str | None, typer.Option("--work", help="Folder for what stages leave each other, and for the status. Default: as for produce.")
    ] = None,
    run: RunOptions,
    plan: Plan = False,
    no_preflight: NoPreflight = False,
    as_json: Json = False,
) -> None:
    """Publish a range of past epochs from one node, each proved against its state roots like a fresh one.

    An epoch's records come from the epoch before it and what has changed since; where that can't be, from the node's flat state or by
    a walk over its State column. A failed epoch leaves the others alone and makes the exit code 3; the same command does what is left.

    Example: `statecast backfill --node-home /archival --epochs 2900..2950 --to gs://bucket/prefix --parallel 4 --plan`
    """
    if full_every is not None and publish.deltas is None:
        raise InvalidInputError(
            problem="--full-every needs --deltas",
            where=f"--full-every {full_every}",
            remedy=f"Add --deltas {full_every}: without deltas nothing leads from a whole epoch to the others.",
        )
    heights = parse_epoch_range(epochs)
    chosen_kernel = choose_kernel(run.kernel)
    limit = run.read_limit_each(read_limit)
    home = node_home_folder(node_home).resolve()
    publish.upload_limit_each(run.processes_beside_node)
    give_node_the_disk()
    refuse_tables_without_dataset(dataset, publish.tables)
    write_dataset = dataset != NO_DATASET
    if source is not None and not write_dataset:
        raise InvalidInputError(
            problem="without datasets nothing is rolled forward", where="--from, --dataset none", remedy="Leave one of them out."
        )
    older = _older_datasets(source, heights.start)
    wanted = find_node_epochs(home, heights, tuple(shard_id or ()), rpc.contexts().find_in_open_node)
    signer = None if plan else publish.choose_signer()
    work_url = work or default_work_folder(publish.to)
    node = NodeInput(str(home), state_walk, limit, roll_forward and write_dataset)

    def assembled(executor: Executor, progress: Progress) -> Backfill:
        return Backfill(
            node=node,
            epochs=wanted,
            older=older,
            executor=executor,
            progress=progress,
            kernel=chosen_kernel,
            publisher_for=lambda context: publish.publisher(context, signer, run.processes_beside_node),
            settings=ProductionSettings.in_folder(
                work_url, dataset_url(dataset), num_parts=publish.num_parts, write_dataset=write_dataset, durable=True
            ),
            parallel=parallel,
            status=BackfillStatus(work_url),
            ladder=publish.ladder(work_url, chosen_kernel, home, dataset_url(dataset) or f"{work_url}/dataset", limit),
            thin=None if full_every is None else thin,
        )

    def thin(runner: StageRunner, layout: EpochLayout) -> None:
        assert full_every is not None
        thin_epoch(publish.to, layout, full_every, EpochRebuild(runner, chosen_kernel, publish.to).why_not, runner.progress.note)

    if plan:
        _print_plan(plan_backfill(assembled(InProcessExecutor(), SilentProgress())), publish.to, run.processes_beside_node, as_json)
        return
    if not no_preflight and (missing := _missing(wanted, publish, signer)):
        place = RunPlace(
            publish.to,
            work_url,
            dataset_url(dataset),
            write_dataset,
            workers_here(run, home),
            claims=False,
            encoding=publish.encoding,
            epochs=len(missing),
            lanes=min(parallel, len(missing)),
            rolls_forward=node.roll_forward and (len(missing) > 1 or bool(older)),
            tables=publish.tables,
            whole_epochs=None if full_every is None else _whole_at_once(missing, full_every, parallel),
        )
        require_fit(place, _one_epoch(missing, node), home)
    with closing(open_progress()) as progress, closing(open_executor(run, beside_node=True)) as executor:
        beside = run.neighbour_note(read_limit)
        progress.note(
            f"backfilling epochs {epochs} from node at {home}, {executor.description}, with the {chosen_kernel.name} kernel; {beside}"
        )
        with held_work_folder(work_url, alone=False):
            remove_dead_scratch(dataset_url(dataset) or ProductionSettings.in_folder(work_url).export.dataset_url)
            steps = assembled(executor, progress).run()
            if full_every is not None:
                rebuild = EpochRebuild(StageRunner(executor, progress), chosen_kernel, publish.to)
                for chain_id in sorted({epoch.context.chain_id for epoch in wanted if epoch.context is not None}):
                    collect_epochs(
                        publish.to,
                        chain_id,
                        RetentionRule(EPOCHS_MAX, orphans_after_s=NEVER_S, full_every=full_every),
                        prove=rebuild.why_not,
                        on_note=progress.note,
                    )
    _print_result(steps, as_json)
    if any(step.state is not StepState.PUBLISHED for step in steps):
        raise typer.Exit(PartialResultError.exit_code)


def _whole_at_once(wanted: Sequence[WantedEpoch], full_every: int, parallel: int) -> int:
    """Return of how many epochs all parts may be there at a time: those that stay, and of each lane its first and two that are worked on."""
    return min(len(wanted), sum(epoch.epoch_height % full_every == 0 for epoch in wanted) + 3 * parallel)


def _missing(wanted: Sequence[WantedEpoch], publish: PublishOptions, signer: Signer | None) -> list[WantedEpoch]:
    """Return the epochs that are not published yet, as far as that can be told: what can't be looked up is the run's own to complain of."""
    missing: list[WantedEpoch] = []
    for epoch in wanted:
        if epoch.context is None:
            continue
        with suppress(StatecastError):
            if publish.publisher(epoch.context, signer).whole_manifest(epoch.context, publish.num_parts) is not None:
                continue
        missing.append(epoch)
    return missing


def _one_epoch(wanted: Sequence[WantedEpoch], node: NodeInput) -> EpochInput | None:
    """Return the newest of the epochs that can be made, for its size; None where none can."""
    for epoch in sorted(wanted, key=lambda one: -one.epoch_height):
        if epoch.context is not None:
            with suppress(StatecastError):
                shard_uids = tuple(shard.shard_uid for shard in epoch.context.shards)
                return EpochInput(epoch.context, shard_uids, node.source(epoch.context))
    return None


def _older_datasets(url: str | None, before: int) -> tuple[ShardDataset, ...]:
    if url is None:
        return ()
    if not url.startswith(DATASET_SCHEME):
        raise InvalidInputError(
            problem="a backfill begins from a dataset alone", where=f"--from {shown_url(url)}", remedy="Give dataset://URL."
        )
    found = [one for one in list_shards(url.removeprefix(DATASET_SCHEME)) if one.summary.context.epoch_height < before]
    if not found:
        raise InvalidInputError(problem=f"the dataset has no epoch before {before}", where=f"--from {shown_url(url)}")
    newest = max(one.summary.context.epoch_height for one in found)
    return tuple(one for one in found if one.summary.context.epoch_height == newest)


def _print_plan(steps: Sequence[PlannedStep], to: str, cores: int, as_json: bool) -> None:
    epochs = len({step.epoch_height for step in steps if step.objects})
    objects = sum(step.objects for step in steps) + OBJECTS_PER_EPOCH * epochs
    size, seconds = sum(step.size for step in steps), sum(step.core_seconds for step in steps) / cores
    if as_json:
        document = {
            "message_type": "plan",
            "to": to,
            "epochs": epochs,
            "objects": objects,
            "bytes": size,
            "seconds": round(seconds, 3),
            "cores": cores,
            "steps": [step.to_json() for step in steps],
        }
        print_json(document)
        return
    table = open_table(
        ("epoch", "shard", "way", "parts", "memory usage"), left=("shard", "way"), title=f"would publish {epochs} epochs to {to}"
    )
    for step in steps:
        table.add_row(
            str(step.epoch_height),
            step.shard,
            coloured((step.problem, "red")) if step.way is None else str(step.way),
            "?" if step.num_parts is None else f"{step.num_parts:,}",
            "?" if step.memory_usage is None else format_bytes(step.memory_usage),
        )
    console = open_console()
    console.print(table)
    console.print(f"{objects:,} objects, about {format_bytes(size)}, about {format_seconds(seconds)} on {cores} cores", highlight=False)


def _print_result(steps: Sequence[Step], as_json: bool) -> None:
    failed = sorted({step.epoch_height for step in steps if step.state is not StepState.PUBLISHED})
    if as_json:
        document = {"message_type": "summary", "failed_epochs": failed, "steps": [step.to_json() for step in steps]}
        print_json(document)
        return
    table = open_table(
        ("epoch", "shard", "state", "way", "records", "parts", "stored", "export"), left=("shard", "state", "way"), title="backfill"
    )
    colours = {StepState.PUBLISHED: "green", StepState.FAILED: "red"}
    for step in steps:
        colour = colours.get(step.state, "yellow")
        table.add_row(
            str(step.epoch_height),
            step.shard,
            coloured((step.state, colour)),
            str(step.way or RecordsWay.PUBLISHED if step.state is StepState.PUBLISHED else step.way or "-"),
            "-" if step.records is None else f"{step.records:,}",
            "-" if step.num_parts is None else f"{step.num_parts:,}",
            "-" if step.stored_size is None else format_bytes(step.stored_size),
            "-" if step.seconds is None else format_seconds(step.seconds),
        )
    console = open_console()
    console.print(table)
    for height in failed:
        error = next((step.error for step in steps if step.epoch_height == height and step.error), None)
        message = "not finished" if error is None else error["message"]
        console.print(coloured((f"epoch {height}", "red"), f" {message}"), highlight=False, soft_wrap=True)
