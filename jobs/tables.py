"""``statecast tables``: an exported epoch as decoded Parquet tables."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer
from rich.table import Table

from jobs.command_time import command_time
from jobs.options import Epoch, EpochId, Json, RunOptions, ShardIds, epoch_selector, open_executor
from jobs.terminal import format_bytes, open_console, open_progress, print_json
from pipelines.dataset.tables.export_tables import chosen_shards, export_tables, prove_roots
from pipelines.execution.stage_runner import StageRunner
from pipelines.kernel.choice import choose_kernel
from pipelines.producing.shared_folders import require_readable, require_shared
from schemas.dataset.tables_summary import TablesShard
from schemas.published.object_layout import EpochLayout


def tables(
    *,
    dataset: Annotated[str, typer.Argument(help="dataset://FOLDER, or dataset://gs://bucket/prefix and the like.")],
    to: Annotated[str, typer.Option("--to", help="Where the tables go: a folder, or gs://bucket/prefix and the like.")],
    epoch: Epoch = None,
    epoch_id: EpochId = None,
    shard_id: ShardIds = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on a record that does not decode; else its row says why.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Recompute the state roots from the dataset's files first.")] = False,
    run: RunOptions,
    as_json: Json = False,
) -> None:
    """Write an exported epoch as Parquet tables with typed columns: accounts, access keys, contract data and so on, a folder a kind.

    The dataset is what `statecast export` or `statecast restore` wrote; its state root was recomputed there. A rerun goes on where an
    earlier one ended.

    Example: `statecast tables dataset:///data/state --to /data/tables`
    """
    shards = chosen_shards(dataset, epoch_selector(epoch, epoch_id), tuple(shard_id or ()))
    with closing(open_progress()) as progress, closing(open_executor(run)) as executor:
        runner = StageRunner(executor, progress)
        require_readable(executor, "dataset", shards)
        require_shared(executor, {"--to": to})
        progress.note(f"decoding {shards[0].summary.source}, {executor.description}")
        if verify:
            prove_roots(runner, choose_kernel(run.kernel), shards)
        written = export_tables(runner, shards, to, strict)
    where = f"{to}/{EpochLayout.of(shards[0].summary.context).folder}"
    if as_json:
        document = {
            "message_type": "summary",
            "tables": where,
            "seconds": round(command_time.seconds(), 3),
            "shards": [_shard_json(shard) for shard in written],
        }
        print_json(document)
    else:
        _print_summary(written, where)


def _shard_json(shard: TablesShard) -> dict[str, object]:
    return {
        "shard_uid": str(shard.context.shards[0].shard_uid),
        "state_root": str(shard.verified_state_root),
        "records": shard.records,
        "records_by_kind": shard.records_by_kind(),
        "decode_errors": shard.decode_errors,
        "files": len(shard.files),
        "size": sum(file.size for file in shard.files),
    }


def _print_summary(written: list[TablesShard], where: str) -> None:
    table = Table(title=f"tables {where}", title_justify="left")
    for name in ("kind", "records", "decode errors", "stored", "files"):
        table.add_column(name, justify="left" if name == "kind" else "right")
    files = [file for shard in written for file in shard.files]
    for kind in sorted({file.kind for file in files}):
        of_kind = [file for file in files if file.kind == kind]
        table.add_row(
            kind,
            f"{sum(file.records for file in of_kind):,}",
            f"{sum(file.decode_errors for file in of_kind):,}",
            format_bytes(sum(file.size for file in of_kind)),
            str(len(of_kind)),
        )
    open_console().print(table)
