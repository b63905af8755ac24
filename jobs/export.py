"""``statecast export``: an epoch's flat state alone, as an Arrow dataset whose recomputed root is the chain's."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from jobs.command_time import command_time
from jobs.epoch_input import InputOptions
from jobs.options import Json, RunOptions, open_executor
from jobs.preflight import NoPreflight, require_room_for_dataset, workers_here
from jobs.terminal import format_bytes, format_seconds, open_console, open_progress, open_table, print_json
from pipelines.dataset.arrow_dataset import DATASET_SCHEME, ShardDataset
from pipelines.dataset.export.export_epoch import export_epoch
from pipelines.dataset.export.export_records import ExportSettings
from pipelines.dataset.record_files import FileFormat
from pipelines.dataset.verify_dataset import verify_dataset
from pipelines.execution.stage_runner import StageRunner
from pipelines.kernel.choice import choose_kernel
from pipelines.producing.shared_folders import require_shared
from pipelines.stores.held_work_folder import remove_dead_scratch, scratch_folder
from pipelines.stores.read_only import check_destination, check_readable_again
from schemas.errors import InvalidInputError
from schemas.published.object_layout import EpochLayout


def export(
    *,
    to: Annotated[
        str, typer.Option("--to", help="Where the dataset goes: dataset://FOLDER, or dataset://gs://bucket/prefix and the like.")
    ],
    given: InputOptions,
    file_format: Annotated[FileFormat, typer.Option("--format", help="ipc (Arrow files) or parquet.")] = FileFormat.IPC,
    run: RunOptions,
    no_preflight: NoPreflight = False,
    as_json: Json = False,
) -> None:
    """Export an epoch's flat state as record batches, and prove that they hash to the chain's state root.

    Says when the node's snapshot is no longer needed. A rerun goes on where an earlier one ended.

    Example: `statecast export --node-home ~/.near --to dataset:///data/state --format parquet`
    """
    chosen_kernel = choose_kernel(run.kernel)
    found = given.open(run)
    if found.source is None:
        raise InvalidInputError(problem="export reads a node, genesis or records, not a dataset", where=f"--from {found.describe()}")
    url = to.removeprefix(DATASET_SCHEME)
    check_destination(url, "--to")
    check_readable_again(url, "--to")
    remove_dead_scratch(url)
    source = found.sorting_in(scratch_folder(url)).source or found.source
    if not no_preflight:
        require_room_for_dataset(url, workers_here(run, given.node_home), found, given.node_home)
    with closing(open_progress()) as progress, closing(open_executor(run, beside_node=given.node_home is not None)) as executor:
        runner = StageRunner(executor, progress)
        require_shared(executor, {"--to": url})
        progress.note(f"exporting from {found.describe()}, {executor.description}, {chosen_kernel.name} kernel{given.beside_node(run)}")
        datasets = export_epoch(runner, source, found.context, ExportSettings(url, file_format))
        exported_s = command_time.seconds()
        progress.note(f"every record and value is exported after {format_seconds(exported_s)}: the snapshot is no longer needed")
        datasets = [verify_dataset(runner, chosen_kernel, dataset, source) for dataset in datasets]
    where = f"{url}/{EpochLayout.of(found.context).folder}"
    if as_json:
        document = {
            "message_type": "summary",
            "dataset": f"{DATASET_SCHEME}{where}",
            "kernel": chosen_kernel.name,
            "snapshot_needed_until_s": round(exported_s, 3),
            "seconds": round(command_time.seconds(), 3),
            "context": found.context.to_json(),
            "shards": [_shard_json(dataset) for dataset in datasets],
        }
        print_json(document)
    else:
        _print_summary(datasets, where)


def _shard_json(dataset: ShardDataset) -> dict[str, object]:
    summary = dataset.summary
    return {
        "shard_uid": str(summary.shard.shard_uid),
        "state_root": str(summary.verified_state_root),
        "root_verified": summary.shard.state_root is not None,
        "memory_usage": summary.memory_usage,
        "records": summary.records,
        "value_bytes": summary.value_bytes,
        "files": len(summary.files),
        "size": summary.size,
    }


def _print_summary(datasets: list[ShardDataset], where: str) -> None:
    table = open_table(
        ("shard", "records", "values", "stored", "files", "state root"), left=("shard", "state root"), title=f"dataset {where}"
    )
    for dataset in datasets:
        summary = dataset.summary
        vouched = "verified" if summary.shard.state_root is not None else "computed"
        size = summary.size
        files = len(summary.all_files)
        table.add_row(
            str(summary.shard.shard_uid),
            f"{summary.records:,}",
            format_bytes(summary.value_bytes),
            format_bytes(size),
            str(files),
            f"{vouched} {summary.verified_state_root}",
        )
    open_console().print(table)
