"""Decoded tables in Apache Iceberg: a table a kind of record, partitioned by epoch, one commit a table and epoch.

Data files are written first and belong to no table; each table takes an epoch's files in one commit. So a run that ends before leaves no
snapshot, and a rerun finds what is committed and commits the rest. Several tables have no commit in common: the last one's is the epoch's end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from pipelines.dataset.arrow_dataset import ShardDataset
from pipelines.dataset.tables.decode_tables import plan_tables
from pipelines.dataset.tables.export_tables import TABLES_TASK_MEMORY_BYTES, require_recomputed
from pipelines.dataset.tables.iceberg_files import FORMAT, WriteIcebergTask, iceberg_columns
from pipelines.execution.executor import TaskNeeds
from pipelines.execution.stage_runner import Amount, StageRunner
from pipelines.stores.answers import shown
from pipelines.stores.durable_file import disk_errors, make_folder
from pipelines.stores.open_store import open_store
from schemas.dataset.tables_selection import SORTED_BY_ACCOUNT, TablesSelection
from schemas.dataset.tables_summary import CATALOGUE_NAME, TableFile
from schemas.errors import DatasetError, InvalidInputError, StatecastError, StoreError
from schemas.nearcore.epoch_context import EpochContext
from schemas.nearcore.trie_key import TrieKeyKind

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

DEFAULT_CATALOGUE: Final = "iceberg.db"
"""SQLite file beside the tables, where no other catalogue is named."""

COMMITS_TRIED_MAX: Final = 5
_PROPERTY: Final = "statecast."


@dataclass(frozen=True, slots=True)
class IcebergTable:
    """What a table has of an epoch."""

    identifier: str
    snapshot_id: int
    is_new: bool
    """Committed now; else it was there."""
    files: tuple[TableFile, ...]


def open_catalogue(to: str, name: str | None) -> Catalog:
    """Open the catalogue that PyIceberg's configuration has under a name, or the SQLite file beside the tables.

    Raises:
        InvalidInputError: PyIceberg is not installed, has no such catalogue, or the tables are in a bucket and no catalogue is named.
    """
    try:
        from pyiceberg.catalog import load_catalog
        from pyiceberg.catalog.sql import SqlCatalog
    except ImportError as error:
        raise InvalidInputError(problem=f"PyIceberg can't be imported: {error}", remedy="pip install 'statecast[iceberg]'") from error
    if name is not None:
        try:
            return load_catalog(name)
        except Exception as error:
            raise InvalidInputError(
                problem=f"the Iceberg catalogue {name!r} can't be opened: {shown(error)}",
                where="--iceberg-catalog",
                remedy="Name one of ~/.pyiceberg.yaml or of PYICEBERG_CATALOG__… in the environment.",
            ) from error
    root = open_store(to).local_root()
    if root is None:
        raise InvalidInputError(
            problem="a catalogue in an SQLite file can't lie in a bucket", where=to, remedy="Name a catalogue with --iceberg-catalog."
        )
    with disk_errors(Path(root)):
        make_folder(Path(root))
    return SqlCatalog("statecast", uri=f"sqlite:///{Path(root) / DEFAULT_CATALOGUE}", warehouse=_location(to))


def export_iceberg(
    runner: StageRunner,
    context: EpochContext,
    shards: Sequence[ShardDataset],
    to: str,
    selection: TablesSelection,
    *,
    catalogue: Catalog,
    strict: bool = False,
) -> list[IcebergTable]:
    """Write the data files of an epoch's exported shards, then commit them, a table a kind.

    Args:
        to: where the tables go.
        strict: fail on a record that does not decode.
    Raises:
        DatasetError: a dataset's state root was never recomputed, or a file is missing or changed; or the place has tables of Parquet alone.
        InvalidInputError: a table of the name is of another chain or selection.
        MalformedValueError: in strict mode.
        StoreError: files can't be written, or other writers were faster each time.
    """
    require_recomputed(shards)
    store = open_store(to)
    if store.info(CATALOGUE_NAME) is not None:
        remedy = "Write to another place: a reader of all Parquet files there would count each record twice."
        raise DatasetError(problem="tables of the other format are here, a folder a kind and epoch", where=store.url, remedy=remedy)
    with _catalogue_errors(to):
        tables = {kind: _existing(catalogue, context, selection, kind) for kind in selection.written_kinds}
    files: dict[TrieKeyKind, list[TableFile]] = {}
    for shard in shards:
        tasks = [WriteIcebergTask(task.span, to, selection) for task in plan_tables(shard, to, selection, strict)]
        written = runner.run(
            "tables",
            str(shard.summary.shard.shard_uid),
            tasks,
            TaskNeeds(TABLES_TASK_MEMORY_BYTES),
            lambda done: Amount(records=sum(file.records for file in done), size=sum(file.size for file in done)),
        )
        for file in (file for group in written for file in group):
            files.setdefault(TrieKeyKind(file.kind), []).append(file)
    shard_ids = [shard.summary.shard.shard_id for shard in shards]
    committed = []
    with _catalogue_errors(to):
        for kind in selection.written_kinds:
            table = tables[kind]
            if table is None and kind in files:
                table = _create(catalogue, context.chain_id, selection, kind, to)
            if table is not None:
                found = _commit(table, context, shard_ids, tuple(files.get(kind, ())), _location(to))
                committed += [] if found is None else [found]
    return committed


@contextmanager
def _catalogue_errors(to: str) -> Iterator[None]:
    """Make errors of the catalogue one of ours: it may be any that PyIceberg knows, and each has errors of its own."""
    try:
        yield
    except StatecastError:
        raise
    except Exception as error:
        raise StoreError(
            problem=f"the Iceberg catalogue failed: {type(error).__name__}: {shown(error)}",
            where=to,
            remedy="Run it again when the catalogue answers: what is committed is there, and no other snapshot.",
        ) from error


def _identifier(chain_id: str, kind: TrieKeyKind) -> tuple[str, str]:
    return re.sub(r"[^a-z0-9_]", "_", chain_id.lower()), str(kind)


def _existing(catalogue: Catalog, context: EpochContext, selection: TablesSelection, kind: TrieKeyKind) -> Table | None:
    """Return a kind's table; None where there is none yet.

    Raises:
        InvalidInputError: it is of another chain or selection, or has another epoch of the same height.
    """
    from pyiceberg.expressions import And, EqualTo, NotEqualTo

    identifier = _identifier(context.chain_id, kind)
    if not catalogue.table_exists(identifier):
        return None
    table = catalogue.load_table(identifier)
    for name, wanted in _properties(context.chain_id, selection).items():
        if table.properties.get(name) != wanted:
            raise InvalidInputError(
                problem=f"the table is of another {name.removeprefix(_PROPERTY)}: {table.properties.get(name)}, not {wanted}",
                where=".".join(identifier),
                remedy="Write to another place, or name another catalogue.",
            )
    other = And(EqualTo("epoch_height", context.epoch_height), NotEqualTo("epoch_id", str(context.epoch_id)))
    if table.scan(row_filter=other, selected_fields=("epoch_id",), limit=1).to_arrow().num_rows:
        raise InvalidInputError(problem=f"the table has another epoch of height {context.epoch_height}", where=".".join(identifier))
    return table


def _properties(chain_id: str, selection: TablesSelection) -> dict[str, str]:
    facts = {"format": FORMAT, "chain_id": chain_id, "selection": json.dumps(selection.to_json())}
    return {_PROPERTY + name: value for name, value in facts.items()}


def _create(catalogue: Catalog, chain_id: str, selection: TablesSelection, kind: TrieKeyKind, to: str) -> Table:
    from pyiceberg.partitioning import PartitionField, PartitionSpec
    from pyiceberg.table.sorting import UNSORTED_SORT_ORDER, SortField, SortOrder
    from pyiceberg.transforms import IdentityTransform

    identifier = _identifier(chain_id, kind)
    schema = _schema(iceberg_columns(selection, kind))
    by_epoch = PartitionField(schema.find_field("epoch_height").field_id, 1000, IdentityTransform(), "epoch_height")
    names = {field.name for field in schema.fields}
    ordered = [name for name in ("account_id", "key") if name in names] if kind in SORTED_BY_ACCOUNT else []
    order = SortOrder(*(SortField(schema.find_field(name).field_id, IdentityTransform()) for name in ordered))
    catalogue.create_namespace_if_not_exists(identifier[0])
    return catalogue.create_table_if_not_exists(
        identifier,
        schema,
        location=f"{_location(to)}/{kind}",
        partition_spec=PartitionSpec(by_epoch),
        sort_order=order if ordered else UNSORTED_SORT_ORDER,
        properties=_properties(chain_id, selection),
    )


def _schema(columns: pa.Schema) -> Any:
    """Return Iceberg's schema of some columns, numbered in their order."""
    from pyiceberg import types
    from pyiceberg.schema import Schema

    plain: dict[pa.DataType, Any] = {
        pa.utf8(): types.StringType(),
        pa.int32(): types.IntegerType(),
        pa.int64(): types.LongType(),
        pa.bool_(): types.BooleanType(),
        pa.binary(): types.BinaryType(),
        pa.binary(32): types.FixedType(32),
        pa.timestamp("us"): types.TimestampType(),
    }

    def converted(found: pa.DataType, element_id: int) -> Any:
        if pa.types.is_list(found):
            return types.ListType(element_id, plain[found.value_type], element_required=False)
        return types.DecimalType(found.precision, found.scale) if pa.types.is_decimal(found) else plain[found]

    count = len(columns)
    return Schema(
        *(types.NestedField(number, field.name, converted(field.type, count + number)) for number, field in enumerate(columns, 1))
    )


def _commit(
    table: Table, context: EpochContext, shard_ids: Sequence[int], files: tuple[TableFile, ...], location: str
) -> IcebergTable | None:
    """Commit some shards' files of an epoch to a table, in the place of what it has of them; None where it never had a snapshot."""
    from pyiceberg.exceptions import CommitFailedException
    from pyiceberg.expressions import And, EqualTo, In

    of_epoch = And(EqualTo("epoch_height", context.epoch_height), In("shard_id", shard_ids))
    wanted = {f"{location}/{file.name}" for file in files}
    facts = {"epoch_height": str(context.epoch_height), "epoch_id": str(context.epoch_id)}
    for _ in range(COMMITS_TRIED_MAX):
        there = {task.file.file_path for task in table.scan(row_filter=of_epoch).plan_files()}
        if there != wanted:
            try:
                with table.transaction() as transaction:
                    if there:
                        transaction.delete(of_epoch)
                    if wanted:
                        properties = {_PROPERTY + name: value for name, value in facts.items()}
                        transaction.add_files(sorted(wanted), properties, check_duplicate_files=False)
            except CommitFailedException:
                table.refresh()
                continue
        snapshot = table.current_snapshot()
        if snapshot is None:
            return None
        return IcebergTable(".".join(table.name()), _snapshot_of(table, facts, snapshot.snapshot_id), there != wanted, files)
    raise StoreError(problem="other writers committed first each time", where=".".join(table.name()), remedy="Run it again.")


def _snapshot_of(table: Table, facts: dict[str, str], newest: int) -> int:
    """Return the snapshot that brought an epoch; the newest where it was expired."""
    for snapshot in reversed(table.metadata.snapshots):
        properties = {} if snapshot.summary is None else snapshot.summary.additional_properties
        if all(properties.get(_PROPERTY + name) == value for name, value in facts.items()):
            return int(snapshot.snapshot_id)
    return newest


def _location(to: str) -> str:
    """Return a place as Iceberg names it: an absolute URL."""
    root = open_store(to).local_root()
    return to.rstrip("/") if root is None else f"file://{Path(root).absolute()}"
