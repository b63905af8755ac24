"""``statecast tables``: an exported epoch as decoded Parquet tables."""

from __future__ import annotations

from contextlib import closing
from enum import StrEnum
from typing import Annotated

import typer

from jobs.command_time import command_time
from jobs.options import Epoch, EpochId, Json, RunOptions, ShardIds, epoch_selector, open_executor
from jobs.terminal import format_bytes, open_console, open_progress, open_table, print_json
from pipelines.dataset.tables.export_tables import chosen_epoch, export_tables, prove_roots, require_recomputed
from pipelines.dataset.tables.iceberg_tables import IcebergTable, export_iceberg, open_catalogue
from pipelines.dataset.tables.tables_place import TablesPlace
from pipelines.execution.stage_runner import StageRunner
from pipelines.kernel.choice import choose_kernel
from pipelines.producing.shared_folders import require_readable, require_shared
from schemas.dataset.tables_selection import TablesSelection
from schemas.dataset.tables_summary import TablesShard
from schemas.errors import InvalidInputError
from schemas.nearcore.epoch_context import EpochContext

_WHAT = "What is written"


class TablesFormat(StrEnum):
    """What is written."""

    PARQUET = "parquet"
    ICEBERG = "iceberg"


def tables(
    *,
    dataset: Annotated[str, typer.Argument(help="dataset://FOLDER, or dataset://gs://bucket/prefix and the like.")],
    to: Annotated[str, typer.Option("--to", help="Where the tables go: a folder, or gs://bucket/prefix and the like.")],
    epoch: Epoch = None,
    epoch_id: EpochId = None,
    shard_id: ShardIds = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind", help="A kind of record to write (account, access_key, …); may be repeated. Default: all.", rich_help_panel=_WHAT
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns", help="Columns to write of those that the kinds have, e.g. account_id,amount. Default: all.", rich_help_panel=_WHAT
        ),
    ] = None,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw/--no-raw",
            help="Write key and value as they are in the trie too: without them the state root can't be recomputed from the tables.",
            rich_help_panel=_WHAT,
        ),
    ] = True,
    account: Annotated[
        list[str] | None,
        typer.Option(
            "--account",
            help="An account whose records to write; may be repeated. Only files that can hold them are read. Default: all.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    contract: Annotated[
        list[str] | None,
        typer.Option("--contract", help="An account whose contract's code and entries to write; may be repeated.", rich_help_panel=_WHAT),
    ] = None,
    table_format: Annotated[
        TablesFormat,
        typer.Option(
            "--format", help="parquet (a folder a kind and epoch), or iceberg: a table a kind, one commit an epoch.", rich_help_panel=_WHAT
        ),
    ] = TablesFormat.PARQUET,
    iceberg_catalog: Annotated[
        str | None,
        typer.Option(
            "--iceberg-catalog",
            help="With --format iceberg: a catalogue of PyIceberg's configuration. Default: an SQLite file in --to, which is a folder then.",
            rich_help_panel=_WHAT,
            show_default=False,
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on a record that does not decode; else its row says why.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Recompute the state roots from the dataset's files first.")] = False,
    run: RunOptions,
    as_json: Json = False,
) -> None:
    """Write an exported epoch as Parquet tables with typed columns: accounts, access keys, contract data and so on, a table a kind.

    The dataset is what `statecast export` or `statecast restore` wrote; its state root was recomputed there. A rerun goes on where an
    earlier one ended. Epochs of one chain go to one place, each with the same columns; its `_sql/views.sql` has views of the finished ones.

    With `--format iceberg` each table takes the epoch in one commit: a run that ends before leaves nothing that a reader sees.

    Examples:

    `statecast tables dataset:///data/state --to /data/tables`

    `statecast tables dataset:///data/state --to s3://lake/near --kind account --columns account_id,amount,locked --no-raw`

    `statecast tables dataset:///data/state --to /data/lake --format iceberg`
    """
    selection = TablesSelection.choose(
        tuple(kind or ()), _column_names(columns), raw, accounts=tuple(account or ()), contracts=tuple(contract or ())
    )
    if iceberg_catalog is not None and table_format is not TablesFormat.ICEBERG:
        remedy = "Give --format iceberg too, or leave it out."
        raise InvalidInputError(problem="a catalogue is of Iceberg tables", where="--iceberg-catalog", remedy=remedy)
    context, shards = chosen_epoch(dataset, epoch_selector(epoch, epoch_id), tuple(shard_id or ()))
    with closing(open_progress()) as progress, closing(open_executor(run)) as executor:
        runner = StageRunner(executor, progress)
        require_readable(executor, "dataset", shards)
        require_shared(executor, {"--to": to})
        progress.note(f"decoding {shards[0].summary.source}, {executor.description}")
        if verify:
            prove_roots(runner, choose_kernel(run.kernel), shards)
        require_recomputed(shards)
        if table_format is TablesFormat.ICEBERG:
            with closing(open_catalogue(to, iceberg_catalog)) as catalogue:
                committed = export_iceberg(runner, context, shards, to, selection, catalogue=catalogue, strict=strict)
            _print_iceberg(committed, to, context, as_json)
            return
        place = TablesPlace.take(to, context.chain_id, selection)
        written = export_tables(runner, context, shards, place, strict)
    if as_json:
        document = {
            "message_type": "summary",
            "tables": to,
            "epoch_height": context.epoch_height,
            "epoch_id": str(context.epoch_id),
            "seconds": round(command_time.seconds(), 3),
            "shards": [_shard_json(shard) for shard in written],
        }
        print_json(document)
    else:
        _print_summary(written, f"{to}, epoch {context.epoch_height}")


def _print_iceberg(committed: list[IcebergTable], to: str, context: EpochContext, as_json: bool) -> None:
    """Say which tables have the epoch, by which snapshot."""
    if as_json:
        document = {
            "message_type": "summary",
            "tables": to,
            "epoch_height": context.epoch_height,
            "epoch_id": str(context.epoch_id),
            "seconds": round(command_time.seconds(), 3),
            "iceberg": [
                {
                    "table": table.identifier,
                    "snapshot_id": table.snapshot_id,
                    "new": table.is_new,
                    "records": sum(file.records for file in table.files),
                    "files": len(table.files),
                    "decode_errors": sum(file.decode_errors for file in table.files),
                }
                for table in committed
            ],
        }
        print_json(document)
        return
    shown = open_table(
        ("table", "snapshot", "records", "stored", ""), left=("table",), title=f"Iceberg tables in {to}, epoch {context.epoch_height}"
    )
    for table in committed:
        records, size = sum(file.records for file in table.files), sum(file.size for file in table.files)
        shown.add_row(table.identifier, str(table.snapshot_id), f"{records:,}", format_bytes(size), "" if table.is_new else "was there")
    open_console().print(shown)


def _column_names(text: str | None) -> tuple[str, ...]:
    names = () if text is None else tuple(name.strip() for name in text.split(","))
    if text is not None and not all(names):
        raise InvalidInputError(problem=f"{text!r:.80} is no list of columns", where="--columns", remedy="Write account_id,amount.")
    return names


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
    table = open_table(("kind", "records", "decode errors", "stored", "files"), left=("kind",), title=f"tables {where}")
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
