"""Batched reads of the State column: trie nodes and values by hash, each checked by it.

Reads a node's hot store and then, for what that lacks, an archival node's cold store, which is not opened before; rows with or without
reference counts, with merges pending or done. Knows nothing of what the bytes mean.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from pipelines.near.node.counted_value import find_payload
from pipelines.near.node.node_columns import STATE, STATE_SHARD_UID_MAPPING, display_name
from pipelines.near.node.node_home import NodeHome, read_node_home
from pipelines.near.node.read_limit import keep_read_limit, process_read_limit
from pipelines.near.node.rocksdb_reader import MERGE_DELIMITER, RocksDbReader, cached_reader
from schemas.errors import ColumnMissingError
from schemas.ids import ShardUId

READ_ROWS_MAX: Final = 8192
"""Most rows that one read asks for. A node has at most 2 KiB and an inlined value 4000 bytes, so a read stays below 32 MiB, and is mostly
some 2 MiB."""

READ_ROWS: Final = 512
"""Rows that a walk in key order asks for at once: it holds as many pending nodes a level of the trie."""

COUNT_BYTES: Final = 8
"""The reference count behind a payload."""

_Place = tuple[RocksDbReader, bytes]
"""A database and a prefix of its keys."""


@dataclass(frozen=True, slots=True)
class StateColumnPlace:
    """Where one shard's rows of State are: a picklable value that each process opens for itself."""

    node_home: str
    shard_uid: ShardUId
    read_limit_bytes_per_s: int | None = None

    def open(self) -> StateColumn:
        """Open the databases; see `StateColumn`.

        Raises:
            ColumnMissingError, SourceError: a database can't be read.
        """
        return StateColumn(read_node_home(self.node_home), self.shard_uid, self.read_limit_bytes_per_s)


class StateColumn:
    """One shard's rows of State, as this process sees them. Not picklable: each process opens its own."""

    def __init__(self, home: NodeHome, shard_uid: ShardUId, read_limit_bytes_per_s: int | None = None) -> None:
        """Open the databases, or use those that this process has open.

        Args:
            read_limit_bytes_per_s: None for no limit.
        Raises:
            ColumnMissingError, SourceError: a database can't be read.
        """
        self.shard_uid = shard_uid
        self._home = home
        hot = _open_state(home.data)
        if hot is None and not self._cold:
            raise ColumnMissingError(
                problem=f"the database has no column family {display_name(STATE)}",
                where=str(home.data),
                remedy="Point to the hot store or state snapshot of a nearcore node.",
            )
        self._hot = () if hot is None else tuple((hot, prefix) for prefix in state_prefixes(hot, shard_uid))
        self._limit = None if read_limit_bytes_per_s is None else process_read_limit(read_limit_bytes_per_s)

    @property
    def where(self) -> str:
        """The shard and the databases, for errors."""
        return f"State column of shard {self.shard_uid}, {' and '.join(map(str, self._home.databases))}"

    @cached_property
    def _cold(self) -> tuple[_Place, ...]:
        """The cold store's places; none where there is no such store, or no such column in it."""
        opened = [cold for folder in self._home.databases[1:] if (cold := _open_state(folder)) is not None]
        return tuple((cold, prefix) for cold in opened for prefix in state_prefixes(cold, self.shard_uid))

    def _places(self) -> Iterator[_Place]:
        """Yield the places where a row may be, the likeliest first; the cold store is opened when it is asked."""
        yield from self._hot
        yield from self._cold

    def read(self, hashes: Sequence[bytes]) -> list[bytes | None]:
        """Return what hashes to each hash, in their order; None where no row does.

        Args:
            hashes: at most ``READ_ROWS_MAX``; one may stand there several times.
        Raises:
            SourceError: a database is damaged.
        """
        assert len(hashes) <= READ_ROWS_MAX, "the caller splits its reads"
        found: list[bytes | None] = [None] * len(hashes)
        # In the order of their keys, so that rows of one block are found while it is at hand.
        missing = sorted(range(len(hashes)), key=hashes.__getitem__)
        for reader, prefix in self._places():
            rows = reader.get_many(STATE, [prefix + hashes[index] for index in missing])
            for index, row in zip(missing, rows, strict=True):
                if row is not None:
                    found[index] = _payload(row, hashes[index])
            keep_read_limit(self._limit, sum(len(row) for row in rows if row is not None))
            missing = [index for index in missing if found[index] is None]
            if not missing:
                break
        return found

    def rows(self, wanted: bytes) -> Iterator[bytes]:
        """Yield the rows under a hash that is read once, those of the likeliest place first; nothing of them is checked.

        Raises:
            SourceError: a database is damaged.
        """
        for reader, prefix in self._places():
            row = reader.get(STATE, prefix + wanted, once=True)
            if row is not None:
                keep_read_limit(self._limit, len(row))
                yield row

    def explain(self, wanted: bytes) -> str:
        """Return why nothing was found under a hash: there is no row, or there is one that does not hash to it."""
        if any(reader.get(STATE, prefix + wanted) is not None for reader, prefix in self._places()):
            return "has a row in the State column that does not hash to it"
        return "is not in the State column"


def _payload(row: bytes, wanted: bytes) -> bytes | None:
    # Nearly every row is one payload and its count; all other forms are the slower function's affair.
    payload = row[:-COUNT_BYTES]
    return payload if hashlib.sha256(payload).digest() == wanted else find_payload(row, wanted, MERGE_DELIMITER)


def _open_state(folder: Path) -> RocksDbReader | None:
    """Open a database's State column, with what says where a shard's rows lie; None where it has none."""
    try:
        return cached_reader(folder, (STATE, STATE_SHARD_UID_MAPPING))
    except ColumnMissingError:
        try:
            return cached_reader(folder, (STATE,))
        except ColumnMissingError:
            return None


def state_prefixes(reader: RocksDbReader, shard_uid: ShardUId) -> tuple[bytes, ...]:
    """Return the prefixes under which a shard's rows of State can lie in a database, the likeliest first.

    After a resharding the rows of a child lie under its parent's uid, as StateShardUIdMapping says. A database of before that has no such
    column family: every shard has a prefix of its own.
    """
    own = shard_uid.to_bytes()
    mapped = reader.get(STATE_SHARD_UID_MAPPING, own) if STATE_SHARD_UID_MAPPING in reader.columns else None
    return tuple(dict.fromkeys((mapped or own, own)))
