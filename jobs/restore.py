"""``statecast restore``: a folder of state parts becomes state again, as an Arrow dataset or a database, proved by its root."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from jobs.command_time import command_time
from jobs.options import Json, RunOptions, open_executor
from jobs.parts_input import PartsOptions, open_parts
from jobs.terminal import format_bytes, format_seconds, open_console, open_progress, open_table, print_json, say
from pipelines.dataset.arrow_dataset import DATASET_SCHEME
from pipelines.dataset.record_files import FileFormat
from pipelines.execution.stage_runner import StageRunner
from pipelines.kernel.choice import choose_kernel
from pipelines.producing.shared_folders import require_shared
from pipelines.stores.read_only import check_readable_again
from schemas.errors import InvalidInputError
from schemas.published.object_layout import EpochLayout

_ROCKSDB = "rocksdb://"


def restore(
    *,
    to: Annotated[
        str,
        typer.Option(
            "--to", help="dataset://FOLDER (or dataset://gs://bucket/prefix, s3://, az://), or rocksdb:///FOLDER that is not there yet."
        ),
    ],
    parts: PartsOptions,
    file_format: Annotated[FileFormat, typer.Option("--format", help="ipc or parquet, for dataset://.")] = FileFormat.IPC,
    run: RunOptions,
    as_json: Json = False,
) -> None:
    """Apply every part, write the whole state, and prove the state root of what was written by reading it back.

    rocksdb:// makes a folder like a node's home: data/ with FlatState and State (reference counts included), and context.json, so
    `statecast produce --node-home FOLDER --context FOLDER/context.json` reads it. No node can start from it: it has no blocks.

    A rerun goes on where an earlier one ended. The database's folder gets its name when it is proved, not before.

    Example: `statecast restore /data/parts --to dataset:///data/state`
    """
    if not to.startswith((DATASET_SCHEME, _ROCKSDB)):
        raise InvalidInputError(problem="--to names neither dataset:// nor rocksdb://", where=to)
    if to.startswith(DATASET_SCHEME):
        check_readable_again(to.removeprefix(DATASET_SCHEME), "--to")
    found = open_parts(parts)
    chosen_kernel = choose_kernel(run.kernel)
    # Imported here: the command line must start quickly, and this loads RocksDB.
    from pipelines.dataset.export.export_records import ExportSettings
    from pipelines.restoring.restore_epoch import restore_database, restore_dataset, shard_json

    with closing(open_progress()) as progress, closing(open_executor(run)) as executor:
        runner = StageRunner(executor, progress)
        progress.note(f"restoring from {found.url}, {executor.description}, {chosen_kernel.name} kernel")
        if to.startswith(DATASET_SCHEME):
            url = to.removeprefix(DATASET_SCHEME)
            require_shared(executor, {"--to": url})
            datasets = restore_dataset(runner, chosen_kernel, found, ExportSettings(url, file_format))
            where = f"{DATASET_SCHEME}{url}/{EpochLayout.of(found.context).folder}"
            rows: list[dict[str, object]] = [
                {
                    "shard_uid": str(dataset.summary.shard.shard_uid),
                    "state_root": str(dataset.summary.verified_state_root),
                    "memory_usage": dataset.summary.memory_usage,
                    "num_parts": len(shard.parts),
                    "records": dataset.summary.records,
                    "size": dataset.summary.size,
                    "root_proved": shard.root_proved,
                }
                for dataset, shard in zip(datasets, found.shards, strict=True)
            ]
        else:
            database = restore_database(runner, chosen_kernel, found, Path(to.removeprefix(_ROCKSDB)).expanduser())
            where = f"{_ROCKSDB}{database.home}"
            rows = [shard_json(shard) for shard in database.shards]
            if database.was_there:
                progress.note("an earlier run had finished it: nothing was done")
    if as_json:
        seconds = round(command_time.seconds(), 3)
        document = {"message_type": "summary", "restored": where, "kernel": chosen_kernel.name, "seconds": seconds, "shards": rows}
        document["absent_shard_ids"] = list(found.absent_shard_ids)
        print_json(document)
        return
    _print_summary(rows, where, command_time.seconds())
    if found.absent_shard_ids:
        say(f"not in the folder, so not restored: shard {', '.join(map(str, found.absent_shard_ids))}")


def _print_summary(rows: list[dict[str, object]], where: str, seconds: float) -> None:
    table = open_table(
        ("shard", "parts", "records", "memory usage", "state root", "root is"),
        left=("shard", "state root", "root is"),
        title=f"{where}, in {format_seconds(seconds)}",
    )
    for row in rows:
        usage = row["memory_usage"]
        table.add_row(
            str(row["shard_uid"]),
            str(row["num_parts"]),
            f"{row['records']:,}",
            format_bytes(usage) if isinstance(usage, int) else "",
            str(row["state_root"]),
            "proved by the sync hash" if row["root_proved"] else "the manifest's or context's word",
        )
    open_console().print(table)
