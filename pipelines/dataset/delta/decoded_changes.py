"""Changed records with their keys and values taken apart, before and after, a row a key: for people and engines.

Columns: ``shard_uid``, ``kind``, ``change`` (created, changed or deleted), those that a key says once, ``key``, and every other column of
the decoded record twice, with ``_before`` and ``_after``; of a created record all before are null, of a deleted one all after.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import reduce
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dataset.tables.decoded_records import decode_batch, decoded_schema
from schemas.dataset.decoded_record import DECODED_SCHEMA, columns_of
from schemas.dataset.flat_state import RECORD_SCHEMA
from schemas.nearcore.trie_key import KINDS_BY_FIRST_BYTE, TrieKeyKind
from schemas.published.delta_statement import BaseRange

KEY_COLUMNS: Final = ("account_id", "public_key", "nonce_index", "data_key", "queue_index", "receiving_shard_id")
"""Columns that a key says in all kinds that have them."""

MOVEMENTS_KEPT: Final = 100
"""Of the largest movements, how many each piece gives."""

_BEFORE: Final = "_before"
_AFTER: Final = "_after"


class Change(StrEnum):
    """What became of a record."""

    CREATED = "created"
    CHANGED = "changed"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Movement:
    """One of the largest changes."""

    size: int
    """Of accounts, how many yoctoNEAR they have more, liquid and staked together; of all else, how many bytes the value has more."""
    row: dict[str, Any]


@dataclass(slots=True)
class ChangeTotals:
    """What changed, in numbers."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Records by kind and change."""
    amount: int = 0
    """How many yoctoNEAR all changed accounts have more, liquid alone."""
    locked: int = 0
    """The same of what is staked."""
    value_bytes: int = 0
    """How many bytes all values have more."""

    def add(self, other: ChangeTotals) -> None:
        """Add another's."""
        self.counts += other.counts
        self.amount += other.amount
        self.locked += other.locked
        self.value_bytes += other.value_bytes


def change_schema(kinds: Collection[TrieKeyKind]) -> pa.Schema:
    """Return the schema of changes of some kinds."""
    names = [name for name in columns_of(kinds) if name not in ("shard_uid", "kind", "key")]
    own = [DECODED_SCHEMA.field(name) for name in names if name in KEY_COLUMNS]
    twice = [
        pa.field(name + when, DECODED_SCHEMA.field(name).type) for name in names if name not in KEY_COLUMNS for when in (_BEFORE, _AFTER)
    ]
    head = [pa.field("shard_uid", pa.utf8()), pa.field("kind", pa.utf8()), pa.field("change", pa.utf8())]
    return pa.schema([*head, *own, pa.field("key", pa.binary()), *twice])


def decode_changes(
    before: Sequence[pa.RecordBatch], after: Sequence[pa.RecordBatch], shard_uid: str, kinds: Collection[TrieKeyKind]
) -> pa.Table:
    """Return changes, of `change_schema`, ascending by key.

    Args:
        before, after: the records of changed keys in both states, of ``RECORD_SCHEMA``, ascending; a key may be in one of them alone.
    """
    names = columns_of(kinds)
    old, new = (_decoded(batches, shard_uid, names, kinds) for batches in (before, after))
    keys = pa.chunked_array([*old["key"].chunks, *new["key"].chunks], pa.binary()).unique()
    keys = keys.take(pc.sort_indices(keys))
    in_old, in_new = pc.index_in(keys, value_set=old["key"]), pc.index_in(keys, value_set=new["key"])
    old, new = old.take(in_old), new.take(in_new)
    change = pc.if_else(
        pc.is_null(in_old), Change.CREATED.value, pc.if_else(pc.is_null(in_new), Change.DELETED.value, Change.CHANGED.value)
    )
    columns: dict[str, Any] = {"change": change, "key": keys}
    for name in names:
        if name in ("shard_uid", "kind", *KEY_COLUMNS):
            columns[name] = pc.coalesce(new[name], old[name])
        elif name != "key":
            columns[name + _BEFORE], columns[name + _AFTER] = old[name], new[name]
    schema = change_schema(kinds)
    return pa.table([columns[name] for name in schema.names], schema=schema)


def total_changes(changes: pa.Table) -> ChangeTotals:
    """Count changes."""
    totals = ChangeTotals(Counter(zip(changes["kind"].to_pylist(), changes["change"].to_pylist(), strict=True)))
    for row in changes.select(_measured(changes)).to_pylist():
        totals.value_bytes += _more(row, "value_length")
        totals.amount += _more(row, "amount")
        totals.locked += _more(row, "locked")
    return totals


def largest_movements(changes: pa.Table) -> list[Movement]:
    """Return the largest movements, the largest first: of accounts where there are any, else of all."""
    shown = changes.filter(pc.equal(changes["kind"], TrieKeyKind.ACCOUNT.value))
    shown = shown if shown.num_rows else changes
    sizes = [
        _more(row, "amount") + _more(row, "locked") if row.get("kind") == TrieKeyKind.ACCOUNT.value else _more(row, "value_length")
        for row in shown.select([*_measured(shown), "kind"]).to_pylist()
    ]
    order = sorted(range(len(sizes)), key=lambda place: (-abs(sizes[place]), place))[:MOVEMENTS_KEPT]
    return [Movement(sizes[place], shown.slice(place, 1).to_pylist()[0]) for place in order]


def merge_movements(movements: Sequence[Sequence[Movement]]) -> list[Movement]:
    """Return the largest movements of several lists; those of accounts alone where there are any."""
    every = [one for found in movements for one in found]
    accounts = [one for one in every if one.row["kind"] == TrieKeyKind.ACCOUNT.value]
    return sorted(accounts or every, key=lambda one: -abs(one.size))[:MOVEMENTS_KEPT]


def ranges_of_kinds(kinds: Collection[TrieKeyKind]) -> tuple[BaseRange, ...]:
    """Return the key ranges that records of some kinds can have, ascending."""
    ranges: list[BaseRange] = []
    for first_byte in range(256):
        possible = KINDS_BY_FIRST_BYTE.get(first_byte, (TrieKeyKind.UNKNOWN,))
        if not set(possible) & set(kinds):
            continue
        begin, end = bytes([first_byte]), bytes([first_byte + 1]) if first_byte < 255 else None
        # The empty key has no first byte.
        begin = b"" if not first_byte and TrieKeyKind.UNKNOWN in kinds else begin
        if ranges and ranges[-1].end == begin:
            ranges[-1] = BaseRange(ranges[-1].begin, end)
        else:
            ranges.append(BaseRange(begin, end))
    return tuple(ranges)


def _decoded(batches: Sequence[pa.RecordBatch], shard_uid: str, names: Sequence[str], kinds: Collection[TrieKeyKind]) -> pa.Table:
    plain = pa.Table.from_batches([batch.replace_schema_metadata(None) for batch in batches], RECORD_SCHEMA).combine_chunks()
    decoded = [one for batch in plain.to_batches() for one in decode_batch(batch, shard_uid, tuple(names), kinds)]
    return pa.Table.from_batches(decoded, decoded_schema(names)).combine_chunks()


def _measured(changes: pa.Table) -> list[str]:
    wanted = [name + when for name in ("value_length", "amount", "locked") for when in (_BEFORE, _AFTER)]
    return [name for name in wanted if name in changes.column_names]


def _more(row: dict[str, Any], name: str) -> int:
    return int(row.get(name + _AFTER) or 0) - int(row.get(name + _BEFORE) or 0)


def sum_totals(totals: Sequence[ChangeTotals]) -> ChangeTotals:
    """Return the sum of several totals."""

    def added(total: ChangeTotals, other: ChangeTotals) -> ChangeTotals:
        total.add(other)
        return total

    return reduce(added, totals, ChangeTotals())
