"""SQL that engines read decoded tables by: views of the finished epochs alone, rebuilt whenever an epoch is finished.

A view a kind of record over all finished epochs, ``KIND_latest`` of the newest complete one, and where the engine has functions that give
tables, ``KIND_at(epoch)``, which for an epoch that is not finished says which are. Nothing here reads or writes a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import pyarrow as pa

from schemas.dataset.tables_summary import StateBlock, TablesCatalogue
from schemas.nearcore.trie_key import TrieKeyKind

_DUCKDB_TYPES: Final = {
    pa.utf8(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.binary(32): "BLOB",
    pa.uint16(): "USMALLINT",
    pa.uint32(): "UINTEGER",
    pa.uint64(): "UBIGINT",
    pa.int64(): "BIGINT",
    pa.bool_(): "BOOLEAN",
    pa.timestamp("us"): "TIMESTAMP",
}
_ATHENA_TYPES: Final = {
    pa.utf8(): "string",
    pa.binary(): "binary",
    pa.binary(32): "binary",
    pa.uint16(): "int",
    pa.uint32(): "bigint",
    # Athena knows no unsigned numbers; what the trie counts stays far below half of the range.
    pa.uint64(): "bigint",
    pa.int64(): "bigint",
    pa.bool_(): "boolean",
    pa.timestamp("us"): "timestamp",
}
_PATH_TYPES: Final = "{'kind': VARCHAR, 'chain_id': VARCHAR, 'epoch_height': BIGINT, 'shard_id': BIGINT}"
_PATH_COLUMNS: Final = (("chain_id", "VARCHAR"), ("epoch_height", "BIGINT"), ("kind", "VARCHAR"), ("shard_id", "BIGINT"))


def duckdb_views(url: str, catalogue: TablesCatalogue) -> str:
    """Return DuckDB's views and macros.

    Args:
        url: where the tables are, as DuckDB reads it: a bucket's URL or an absolute path.
    """
    heights = _heights(catalogue)
    text = _head(catalogue, "--", ".read _sql/views.sql")
    rows = ", ".join(
        f"({entry.epoch_height}, {_quoted(str(entry.epoch_id))}, "
        + (
            "null, null, null"
            if entry.block is None
            else f"{entry.block.height}, {_time(entry.block)}, {_number(entry.block.total_supply)}"
        )
        + f", {entry.complete}, {entry.records})"
        for entry in catalogue.epochs
    )
    names = "epoch_height, epoch_id, block_height, block_timestamp, total_supply, complete, records"
    values = f"(values {rows})" if rows else f"(select {', '.join(['null'] * 7)})"
    text += (
        "create or replace view epochs as select epoch_height::BIGINT as epoch_height, epoch_id::VARCHAR as epoch_id, "
        "block_height::BIGINT as block_height, block_timestamp::TIMESTAMP as block_timestamp, total_supply::DECIMAL(38, 0) as total_supply, complete::BOOLEAN as complete, "
        f"records::BIGINT as records from {values} as known({names}) where epoch_height is not null;\n"
    )
    for kind in catalogue.selection.written_kinds:
        text += "".join(_duckdb_kind(_glob_escaped(url), catalogue, kind, heights))
    return text


def _time(block: StateBlock) -> str:
    return "null" if block.time is None else _quoted(block.time.replace(tzinfo=None).isoformat(" "))


def _number(number: int | None) -> str:
    return "null" if number is None else str(number)


def _duckdb_kind(url: str, catalogue: TablesCatalogue, kind: TrieKeyKind, heights: str) -> Iterator[str]:
    if any(kind in entry.records_by_kind for entry in catalogue.epochs):
        yield f"create or replace view {kind} as {_duckdb_scan(f'{url}/kind={kind}/chain_id={catalogue.chain_id}/*/*/*.parquet')} "
        yield f"where epoch_height in ({heights});\n"
    else:
        columns = [(field.name, _duckdb_type(field.type)) for field in catalogue.selection.schema(kind)]
        nulls = ", ".join(f'null::{name_type} as "{name}"' for name, name_type in [*columns, *_PATH_COLUMNS])
        yield f"create or replace view {kind} as select {nulls} where false;\n"
    latest = catalogue.latest
    if latest is not None:
        yield f"create or replace view {kind}_latest as "
        if kind in latest.records_by_kind:
            path = f"{url}/kind={kind}/chain_id={catalogue.chain_id}/epoch_height={latest.epoch_height}/*/*.parquet"
            yield f"{_duckdb_scan(path)};\n"
        else:
            yield f"select * from {kind} where epoch_height = {latest.epoch_height};\n"
    unknown = f"'epoch ' || epoch || ' is not finished here; finished are {heights}'"
    known = f"case when epoch in ({heights}) then epoch else error({unknown}) end" if heights else "epoch"
    yield f"create or replace macro {kind}_at(epoch) as table select * from {kind} where epoch_height = {known};\n"


def _duckdb_scan(path: str) -> str:
    return f"select * from read_parquet({_quoted(path)}, hive_partitioning = true, hive_types = {_PATH_TYPES})"


def _duckdb_type(found: pa.DataType) -> str:
    if pa.types.is_list(found):
        return f"{_duckdb_type(found.value_type)}[]"
    if pa.types.is_decimal(found):
        return f"DECIMAL({found.precision}, {found.scale})"
    return _DUCKDB_TYPES[found]


def bigquery_ddl(url: str, catalogue: TablesCatalogue) -> str:
    """Return BigQuery's external tables, views and table functions, in a data set that is called ``DATASET`` and to be replaced.

    A view's body must name the data set, and takes no notice of a default one
    (https://docs.cloud.google.com/bigquery/docs/views).

    Args:
        url: gs://bucket/prefix.
    """
    heights = _heights(catalogue)
    text = _head(catalogue, "--", "sed 's/DATASET[.]/near./' bigquery.sql | bq query --use_legacy_sql=false")
    for kind in catalogue.selection.written_kinds:
        if not any(kind in entry.records_by_kind for entry in catalogue.epochs):
            text += f"-- {kind}: no finished epoch has such records.\n"
            continue
        prefix = f"{url}/kind={kind}"
        text += (
            f"create or replace external table DATASET.{kind}_files\n"
            "with partition columns (chain_id string, epoch_height int64, shard_id int64)\n"
            f"options (format = 'PARQUET', uris = [{_quoted(f'{prefix}/*')}], hive_partition_uri_prefix = {_quoted(prefix)},\n"
            "  decimal_target_types = ['BIGNUMERIC'], enable_list_inference = true);\n"
            f"create or replace view DATASET.{kind} as\n"
            f"  select * from DATASET.{kind}_files\n"
            f"  where chain_id = {_quoted(catalogue.chain_id)} and epoch_height in ({heights});\n"
            f"create or replace table function DATASET.{kind}_at(epoch int64) as\n"
            f"  select * from DATASET.{kind}\n"
            f"  where epoch_height = if(epoch in ({heights}), epoch, error(concat('epoch ', cast(epoch as string), "
            f"' is not finished here; finished are {heights}')));\n"
        )
        if catalogue.latest is not None:
            text += f"create or replace view DATASET.{kind}_latest as\n"
            text += f"  select * from DATASET.{kind} where epoch_height = {catalogue.latest.epoch_height};\n"
    return text


def athena_ddl(url: str, catalogue: TablesCatalogue) -> str:
    """Return Athena's external tables and views. The epochs are named in the tables' properties: no partition is loaded or crawled.

    Args:
        url: s3://bucket/prefix.
    """
    text = _head(catalogue, "--", "one statement after another, in the console or by start-query-execution")
    heights = _heights(catalogue).replace(" ", "")
    shard_ids = ",".join(str(shard_id) for shard_id in sorted({one for entry in catalogue.epochs for one in entry.shard_ids}))
    for kind in catalogue.selection.written_kinds:
        if not heights:
            break
        columns = ",\n".join(f"  `{field.name}` {_athena_type(field.type)}" for field in catalogue.selection.schema(kind))
        text += (
            f"drop table if exists {kind};\n"
            f"create external table {kind} (\n{columns}\n)\n"
            "partitioned by (chain_id string, epoch_height bigint, shard_id bigint)\n"
            f"stored as parquet\nlocation {_quoted(f'{url}/kind={kind}/')}\n"
            "tblproperties (\n  'projection.enabled' = 'true',\n"
            f"  'projection.chain_id.type' = 'enum', 'projection.chain_id.values' = {_quoted(catalogue.chain_id)},\n"
            f"  'projection.epoch_height.type' = 'enum', 'projection.epoch_height.values' = '{heights}',\n"
            f"  'projection.shard_id.type' = 'enum', 'projection.shard_id.values' = '{shard_ids}',\n"
            "  'storage.location.template' = "
            f"{_quoted(f'{url}/kind={kind}/chain_id=${{chain_id}}/epoch_height=${{epoch_height}}/shard_id=${{shard_id}}')});\n"
        )
        if catalogue.latest is not None:
            text += f"create or replace view {kind}_latest as select * from {kind} where epoch_height = {catalogue.latest.epoch_height};\n"
    return text


def _athena_type(found: pa.DataType) -> str:
    if pa.types.is_list(found):
        return f"array<{_athena_type(found.value_type)}>"
    if pa.types.is_decimal(found):
        return f"decimal({found.precision},{found.scale})"
    return _ATHENA_TYPES[found]


def _head(catalogue: TablesCatalogue, comment: str, usage: str) -> str:
    latest = "none is complete" if catalogue.latest is None else f"the newest complete one is {catalogue.latest.epoch_height}"
    return (
        f"{comment} Finished epochs of {catalogue.chain_id}: {_heights(catalogue) or 'none'}; {latest}.\n"
        f"{comment} Made by statecast with each epoch; usage: {usage}\n"
    )


def _heights(catalogue: TablesCatalogue) -> str:
    return ", ".join(str(entry.epoch_height) for entry in catalogue.epochs)


def _quoted(text: str) -> str:
    escaped = text.replace("'", "''")
    return f"'{escaped}'"


def _glob_escaped(path: str) -> str:
    """Return a path in which nothing is a pattern of DuckDB's glob."""
    return re.sub(r"([*?\[])", r"[\1]", path)
