"""``statecast diff``: what changed between two epochs, decoded, before and after."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import typer

from jobs.command_time import command_time
from jobs.options import Json, PublishedShardIds, RunOptions, open_executor
from jobs.produce import default_work_folder
from jobs.terminal import format_bytes, format_seconds, open_console, open_progress, open_table, print_json, say
from pipelines.bucket.published_deltas import listed_deltas, read_delta_statement
from pipelines.bucket.published_epoch import read_manifest
from pipelines.dataset.arrow_dataset import DATASET_SCHEME
from pipelines.dataset.delta.decoded_changes import Change, ChangeTotals, Movement, change_schema, merge_movements, sum_totals
from pipelines.dataset.delta.stored_delta import StoredDelta
from pipelines.execution.stage_runner import StageRunner
from pipelines.kernel.choice import choose_kernel
from pipelines.producing.deltas.shard_delta import child_ranges
from pipelines.producing.deltas.state_diff import ShardDiff, ShardStates, diff_shard
from pipelines.producing.rebuild.base_states import BaseState, find_base_states, with_thin_states
from pipelines.stores.durable_file import disk_errors, give_name
from pipelines.stores.held_work_folder import held_work_folder
from pipelines.stores.open_store import open_store
from schemas.errors import EpochNotReadyError, InvalidInputError
from schemas.nearcore.trie_key import TrieKeyKind
from schemas.published.delta_statement import WHOLE_BASE, BaseRange
from schemas.published.manifest import Manifest
from schemas.published.object_layout import EpochLayout, split_chain_url
from schemas.shown_text import shown_url

ENDINGS: Final = (".parquet", ".csv")

_YOCTO: Final = 10**24


def diff(
    url: Annotated[str, typer.Argument(help="Where both epochs are: a bucket or folder of parts, or dataset://URL.")],
    older: Annotated[str, typer.Option("--from", help="Height or id of the earlier epoch.")],
    to: Annotated[
        list[str],
        typer.Option(
            "--to", help="Height or id of the later epoch; given once more, the file that gets the rows: NAME.parquet or NAME.csv."
        ),
    ],
    kind: Annotated[
        list[str] | None,
        typer.Option("--kind", help="A kind of record (account, access_key, …); may be repeated. Default: all.", show_default=False),
    ] = None,
    shard_id: PublishedShardIds = None,
    by_delta: Annotated[
        bool,
        typer.Option("--by-delta", help="Trust the later epoch's published delta instead of reading the later epoch's parts."),
    ] = False,
    largest: Annotated[int, typer.Option("--largest", min=0, max=100, help="How many of the largest movements to show.")] = 20,
    work: Annotated[str | None, typer.Option("--work", help="Folder for what stages leave each other. Default: as for produce.")] = None,
    *,
    run: RunOptions,
    as_json: Json = False,
) -> None:
    """Tell what changed between two epochs: each record before and after, decoded, and the sums of each shard.

    Of parts only those are read that the wanted kinds can lie in, each validated against its manifest's state root; no signature is
    judged. An epoch that is kept as deltas is read out of the one that it is rebuilt of, and those. A shard that was split off in between
    is compared with the accounts that it has of its parent.

    Example: `statecast diff gs://bucket/prefix --from 2949 --to 2950 --kind account --to changes.parquet`
    """
    newer, file = _epoch_and_file(to)
    kinds = _kinds(kind)
    kernel = choose_kernel(run.kernel)
    states = find_base_states(url, kernel.name)
    if not url.startswith(DATASET_SCHEME):
        states = with_thin_states(states, url, (older, newer), kernel.name)
    before, after = _epoch(states, older, url), _epoch(states, newer, url)
    if before[0].end.epoch_id == after[0].end.epoch_id:
        raise InvalidInputError(problem="both are the same epoch", where=f"--from {older} --to {newer}")
    pairs = _pairs(url, before, after, tuple(shard_id or ()), by_delta=by_delta)
    work_url, folder = work or default_work_folder("diff"), f"diff-{uuid.uuid4().hex}"
    with (
        closing(open_progress()) as progress,
        closing(open_executor(run)) as executor,
        held_work_folder(work_url, alone=False),
    ):
        runner = StageRunner(executor, progress)
        try:
            found = [diff_shard(runner, pair, kinds, work_url, folder) for pair in pairs]
            if file is not None:
                _write(file, kinds, found)
        finally:
            open_store(work_url).delete_folder(folder)
    totals = sum_totals([shard.totals for shard in found])
    movements = merge_movements([shard.movements for shard in found])[:largest]
    if as_json:
        print_json(
            {
                "message_type": "summary",
                "from": before[0].end.epoch_height,
                "to": after[0].end.epoch_height,
                "file": None if file is None else str(file),
                "rows": sum(shard.rows for shard in found),
                "seconds": round(command_time.seconds(), 3),
                "shards": [{"shard_uid": shard.shard_uid, **_totals_json(shard.totals)} for shard in found],
                "totals": _totals_json(totals),
                "largest": [_movement_json(one) for one in movements],
            }
        )
        return
    _print(found, totals, movements)
    if file is not None:
        say(f"{sum(shard.rows for shard in found):,} rows in {file}, {format_seconds(command_time.seconds())}")


def _epoch_and_file(to: list[str]) -> tuple[str, Path | None]:
    files = [text for text in to if text.endswith(ENDINGS)]
    epochs = [text for text in to if text not in files]
    if len(epochs) != 1 or len(files) > 1:
        raise InvalidInputError(
            problem="--to names the later epoch, and once more at most a file",
            where=" ".join(to)[:200],
            remedy="A file ends in .parquet or .csv.",
        )
    return epochs[0], Path(files[0]).expanduser() if files else None


def _kinds(names: list[str] | None) -> tuple[TrieKeyKind, ...]:
    unknown = sorted(set(names or ()) - {str(kind) for kind in TrieKeyKind})
    if unknown:
        raise InvalidInputError(
            problem=f"no kind of record is called {unknown[0]}", where="--kind", remedy=f"There are {', '.join(TrieKeyKind)}."
        )
    return tuple(TrieKeyKind(name) for name in dict.fromkeys(names)) if names else tuple(TrieKeyKind)


def _epoch(states: tuple[BaseState, ...], selector: str, url: str) -> list[BaseState]:
    chains = {state.chain_id for state in states}
    if len(chains) > 1:
        raise InvalidInputError(
            problem=f"several chains are there: {', '.join(sorted(chains))}", where=shown_url(url), remedy="Name one: …/chain_id=C."
        )
    newest = str(max(state.end.epoch_height for state in states))
    selector = newest if selector == "latest" else selector
    found = [state for state in states if selector in (str(state.end.epoch_height), str(state.end.epoch_id))]
    if len({state.end.epoch_id for state in found}) != 1:
        known = ", ".join(map(str, sorted({state.end.epoch_height for state in states})[-10:]))
        problem = f"several epochs have the height {selector}" if found else f"epoch {selector} is not there"
        raise EpochNotReadyError(problem=problem, where=shown_url(url), remedy=f"There is {known}.")
    return sorted(found, key=lambda state: state.end.shard_uid.shard_id)


def _pairs(url: str, before: list[BaseState], after: list[BaseState], shard_ids: tuple[int, ...], *, by_delta: bool) -> list[ShardStates]:
    """Return the states that are compared: of each later shard its own earlier one, or its parent's."""
    manifest = None if url.startswith(DATASET_SCHEME) else _manifest(url, after[0])
    wanted = [state for state in after if not shard_ids or state.end.shard_uid.shard_id in shard_ids]
    pairs = []
    for state in wanted:
        uid = state.end.shard_uid
        listed = None if manifest is None else manifest.shard(uid.shard_id)
        parent = None if listed is None else listed.parent_shard_uid
        older = next((one for uid_ in (uid, parent) for one in before if one.end.shard_uid == uid_), None)
        if older is None:
            say(f"shard {uid} is left out: the earlier epoch has neither it nor the one that it was split from")
            continue
        ranges: tuple[BaseRange, ...] = WHOLE_BASE
        if older.end.shard_uid != uid and manifest is not None:
            ranges = child_ranges(manifest.shard_layout, uid.shard_id)
        newer = _delta(url, manifest, older, uid.shard_id) if by_delta else state.records
        pairs.append(ShardStates(str(uid), older.records, newer, newer.statement.base_ranges if isinstance(newer, StoredDelta) else ranges))
    if not pairs:
        raise EpochNotReadyError(problem="no shard is in both epochs", where=shown_url(url))
    return pairs


def _manifest(url: str, state: BaseState) -> Manifest | None:
    store = open_store(split_chain_url(url)[0])
    stored = read_manifest(store, EpochLayout(state.chain_id, state.end.epoch_height, state.end.epoch_id))
    return None if stored is None else stored.manifest


def _delta(url: str, manifest: Manifest | None, older: BaseState, shard_id: int) -> StoredDelta:
    store = open_store(split_chain_url(url)[0])
    listed = None
    if manifest is not None:
        listed = next((one for one in listed_deltas(manifest, shard_id) if one.base_epoch_id == older.end.epoch_id), None)
    if manifest is None or listed is None:
        raise EpochNotReadyError(
            problem=f"no delta of shard {shard_id} from epoch {older.end.epoch_height} is published",
            where=shown_url(url),
            remedy="Leave --by-delta out: then the parts are compared.",
        )
    layout = manifest.layout
    return StoredDelta(store.url, read_delta_statement(store, layout, listed)[0])


def _write(file: Path, kinds: tuple[TrieKeyKind, ...], found: list[ShardDiff]) -> None:
    """Write all rows; the file has its name once it is whole."""
    unfinished = file.with_name(f".{file.name}.unfinished")
    tables = (table for shard in found for table in shard.tables())
    with disk_errors(file):
        try:
            if file.suffix == ".parquet":
                with pq.ParquetWriter(unfinished, change_schema(kinds), compression="zstd") as writer:
                    _each(tables, writer.write_table)
            else:
                schema = _as_text(change_schema(kinds).empty_table()).schema
                with pyarrow.csv.CSVWriter(unfinished, schema) as writer:
                    _each(tables, lambda table: writer.write_table(_as_text(table)))
            give_name(unfinished, file)
        finally:
            unfinished.unlink(missing_ok=True)


def _each(tables: Iterable[pa.Table], write: Any) -> None:
    for table in tables:
        write(table)


def _as_text(table: pa.Table) -> pa.Table:
    """Return a table as CSV can hold it: bytes in hexadecimal, lists by spaces, amounts as digits."""
    columns = []
    for name in table.column_names:
        column, kind = table[name], table.schema.field(name).type
        if pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
            column = pa.array([None if value is None else value.hex() for value in column.to_pylist()], pa.utf8())
        elif pa.types.is_list(kind):
            column = pa.array([None if value is None else " ".join(value) for value in column.to_pylist()], pa.utf8())
        elif pa.types.is_decimal(kind):
            column = pc.cast(column, pa.utf8())
        columns.append(column)
    return pa.table(columns, names=table.column_names)


def _totals_json(totals: ChangeTotals) -> dict[str, object]:
    kinds: dict[str, dict[str, int]] = {}
    for (kind, change), count in sorted(totals.counts.items()):
        kinds.setdefault(kind, {})[change] = count
    return {"kinds": kinds, "amount": str(totals.amount), "locked": str(totals.locked), "value_bytes": totals.value_bytes}


def _movement_json(movement: Movement) -> dict[str, object]:
    plain = {name: value.hex() if isinstance(value, bytes) else value for name, value in movement.row.items() if value is not None}
    return {
        "movement": str(movement.size),
        **{name: value if isinstance(value, int | str | list) else str(value) for name, value in plain.items()},
    }


def _print(found: list[ShardDiff], totals: ChangeTotals, movements: list[Movement]) -> None:
    console = open_console()
    table = open_table(("shard", "kind", *map(str, Change), "NEAR", "staked", "bytes"), left=("shard", "kind"), title="what changed")
    for shard in found:
        for kind in sorted({kind for kind, _ in shard.totals.counts}):
            is_account = kind == TrieKeyKind.ACCOUNT
            table.add_row(
                shard.shard_uid,
                kind,
                *(f"{shard.totals.counts[kind, change]:,}" for change in Change),
                _near(shard.totals.amount) if is_account else "",
                _near(shard.totals.locked) if is_account else "",
                "",
            )
        table.add_row(shard.shard_uid, "all", f"{shard.rows:,}", "", "", "", "", _signed_bytes(shard.totals.value_bytes))
    table.add_row(
        "all",
        "all",
        f"{sum(shard.rows for shard in found):,}",
        "",
        "",
        _near(totals.amount),
        _near(totals.locked),
        _signed_bytes(totals.value_bytes),
    )
    console.print(table)
    if not movements:
        return
    largest = open_table(
        ("shard", "kind", "what", "change", "movement"), left=("shard", "kind", "what", "change"), title="largest movements"
    )
    for one in movements:
        row = one.row
        is_account = row["kind"] == TrieKeyKind.ACCOUNT
        what = row.get("account_id") or row["key"].hex()
        largest.add_row(
            row["shard_uid"], row["kind"], what, row["change"], f"{_near(one.size)} NEAR" if is_account else _signed_bytes(one.size)
        )
    console.print(largest)


def _near(yocto: int) -> str:
    return f"{yocto / _YOCTO:+,.3f}"


def _signed_bytes(size: int) -> str:
    return f"{'-' if size < 0 else '+'}{format_bytes(abs(size))}"
