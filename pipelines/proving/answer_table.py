"""Answers of `get_records` as a table: one row an epoch and wanted record, with the columns of the decoded tables."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Iterable, Sequence
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.proving.get_records import EpochAnswer
from pipelines.proving.wanted_record import WantedRecord
from schemas.dataset.decoded_record import DECODED_SCHEMA, KIND_COLUMNS, decode_record
from schemas.errors import InvalidInputError
from schemas.nearcore.trie_key import TrieKeyKind

_HEAD: Final = (
    pa.field("epoch_height", pa.int64(), nullable=False),
    pa.field("epoch_id", pa.utf8(), nullable=False),
    pa.field("committed_height", pa.int64()),
    pa.field("committed_at", pa.timestamp("us")),
    pa.field("shard_id", pa.int64()),
)
_KEYS: Final = ("account_id", "public_key", "data_key")
_TAIL: Final = ("value", "value_length", "decode_error", "decode_note")


class AnswerKind(StrEnum):
    """What is looked up."""

    ACCOUNT = "account"
    ACCESS_KEY = "access_key"
    CONTRACT_DATA = "contract_data"


class AnswerFormat(StrEnum):
    """What a file of answers is, by the end of its name."""

    PARQUET = ".parquet"
    CSV = ".csv"
    JSONL = ".jsonl"


def answer_schema(kind: AnswerKind) -> pa.Schema:
    """Return the columns of answers: epoch, block, shard, what was asked for, whether it exists, and what it is."""
    names = KIND_COLUMNS[TrieKeyKind(kind)]
    keys = [DECODED_SCHEMA.field(name) for name in _KEYS if name in names]
    # Of an account and an access key the value is in the columns.
    tail = _TAIL if kind is AnswerKind.CONTRACT_DATA else _TAIL[2:]
    others = [DECODED_SCHEMA.field(name).with_nullable(True) for name in (*(name for name in names if name not in _KEYS), *tail)]
    return pa.schema([*_HEAD, *keys, pa.field("exists", pa.bool_(), nullable=False), *others])


def answer_table(answer: EpochAnswer, wanted: Sequence[WantedRecord], kind: AnswerKind) -> pa.Table:
    """Return one epoch's rows, in the order of the wanted records."""
    schema, block = answer_schema(kind), answer.block
    head = {
        "epoch_height": answer.layout.epoch_height,
        "epoch_id": str(answer.layout.epoch_id),
        "committed_height": None if block is None else block.height,
        "committed_at": None if block is None else block.timestamp_ns // 1000,
    }
    rows: list[dict[str, Any]] = []
    for record, found in zip(wanted, answer.found, strict=True):
        decoded = decode_record(record.trie_key, found.value if found.value is not None else b"", None)
        if found.value is None:
            decoded = {name: decoded[name] for name in _KEYS if name in decoded}
        else:
            decoded |= {"value": found.value, "value_length": len(found.value)}
        shard_id = None if found.shard_uid is None else found.shard_uid.shard_id
        rows.append(head | {"shard_id": shard_id, "exists": found.value is not None} | decoded)
    return pa.Table.from_arrays([pa.array([row.get(field.name) for row in rows], field.type) for field in schema], schema=schema)


def answer_format(path: Path) -> AnswerFormat:
    """Return what a file of this name is.

    Raises:
        InvalidInputError: none of the three.
    """
    try:
        return AnswerFormat(path.suffix.lower())
    except ValueError:
        raise InvalidInputError(
            problem=f"{path.name!r} does not say what to write", where="--to", remedy=f"Its name ends in {', '.join(AnswerFormat)}."
        ) from None


def write_answers(path: Path, tables: Iterable[pa.Table], kind: AnswerKind) -> int:
    """Write tables one after another; return how many rows there are.

    Raises:
        OSError: as the operating system says.
    """
    form, schema = answer_format(path.with_name(path.name.removesuffix(".unfinished"))), answer_schema(kind)
    if form is AnswerFormat.PARQUET:
        count = 0
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for table in tables:
                writer.write_table(table)
                count += table.num_rows
        return count
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = (_plain(row) for table in tables for row in _rows(table))
        match form:
            case AnswerFormat.CSV:
                return _write_csv(file, rows, schema.names)
            case AnswerFormat.JSONL:
                return _write_json_lines(file, rows)


def _rows(table: pa.Table) -> Iterable[dict[str, Any]]:
    at = table.schema.get_field_index("committed_at")
    text = pa.compute.strftime(table.column(at), "%Y-%m-%dT%H:%M:%SZ")
    rows: list[dict[str, Any]] = table.set_column(at, "committed_at", text).to_pylist()
    return rows


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Replace what JSON has not: amounts are text, bytes base64."""

    def plain(value: Any) -> Any:
        if isinstance(value, Decimal):
            return str(int(value))
        return base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else value

    return {name: plain(value) for name, value in row.items()}


def _write_csv(file: TextIO, rows: Iterable[dict[str, Any]], names: Sequence[str]) -> int:
    writer, count = csv.DictWriter(file, names, lineterminator="\n"), 0
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
        count += 1
    return count


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


def _write_json_lines(file: TextIO, rows: Iterable[dict[str, Any]]) -> int:
    count = 0
    for row in rows:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        count += 1
    return count
