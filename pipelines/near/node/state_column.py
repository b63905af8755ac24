"""Batched reads of the State column: trie nodes and values by hash, each checked by it.

Reads a node's hot store and then, for what that lacks, an archival node's cold store; rows with or without reference counts, with merges
pending or done. Knows nothing of what the bytes mean.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipelines.near.node.counted_value import find_payload
from pipelines.near.node.node_columns import STATE, STATE_SHARD_UID_MAPPING
from pipelines.near.node.node_home import NodeHome, read_node_home
from pipelines.near.node.read_limit import keep_read_limit, process_read_limit
from pipelines.near.node.rocksdb_reader import MERGE_DELIMITER, RocksDbReader, cached_reader
from schemas.errors import ColumnMissingError
from schemas.ids import ShardUId

READ_ROWS: Final = 512
"""Rows that one read asks for at once. A node has at most 2 KiB and an inlined value 4000 bytes, so a read stays below 2 MiB."""

_COUNT_BYTES: Final = 8


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
        folders = (home.data,) if home.cold_data is None else (home.data, home.cold_data)
        self._places = tuple(place for folder in folders for place in _places(folder, shard_uid))
        self._limit = None if read_limit_bytes_per_s is None else process_read_limit(read_limit_bytes_per_s)

    @property
    def where(self) -> str:
        """The shard and the databases, for errors."""
        folders = dict.fromkeys(str(reader.folder) for reader, _ in self._places)
        return f"State column of shard {self.shard_uid}, {' and '.join(folders)}"

    def read(self, hashes: Sequence[bytes]) -> list[bytes | None]:
        """Return what hashes to each hash, in their order; None where no row does.

        Args:
            hashes: at most ``READ_ROWS``; one may stand there several times.
        Raises:
            SourceError: a database is damaged.
        """
        assert len(hashes) <= READ_ROWS, "the caller splits its reads"
        found: list[bytes | None] = [None] * len(hashes)
        missing = list(range(len(hashes)))
        for reader, prefix in self._places:
            rows = reader.get_many(STATE, [prefix + hashes[index] for index in missing])
            for index, row in zip(missing, rows, strict=True):
                if row is not None:
                    found[index] = _payload(row, hashes[index])
            keep_read_limit(self._limit, sum(len(row) for row in rows if row is not None))
            missing = [index for index in missing if found[index] is None]
            if not missing:
                break
        return found

    def explain(self, wanted: bytes) -> str:
        """Return why nothing was found under a hash: there is no row, or there is one that does not hash to it."""
        if any(reader.get(STATE, prefix + wanted) is not None for reader, prefix in self._places):
            return "has a row in the State column that does not hash to it"
        return "is not in the State column"


def _payload(row: bytes, wanted: bytes) -> bytes | None:
    # Nearly every row is one payload and its count; all other forms are the slower function's affair.
    payload = row[:-_COUNT_BYTES]
    return payload if hashlib.sha256(payload).digest() == wanted else find_payload(row, wanted, MERGE_DELIMITER)


def _places(folder: Path, shard_uid: ShardUId) -> list[tuple[RocksDbReader, bytes]]:
    """Return under which prefixes of a database a shard's rows can lie, the likeliest first."""
    own = shard_uid.to_bytes()
    try:
        reader = cached_reader(folder, (STATE, STATE_SHARD_UID_MAPPING))
    except ColumnMissingError:
        # A database of before the mapping: every shard has a prefix of its own.
        return [(cached_reader(folder, (STATE,)), own)]
    # After a resharding the rows of a child lie under its parent's uid.
    mapped = reader.get(STATE_SHARD_UID_MAPPING, own)
    return [(reader, own)] if mapped is None or mapped == own else [(reader, mapped), (reader, own)]
