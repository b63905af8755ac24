"""The chain's rows of a node: those of the hot store, and of an archival node's cold store what the hot one no longer has."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from pipelines.near.node.node_home import NodeHome
from pipelines.near.node.rocksdb_reader import RocksDbReader, Row, list_columns


class ChainRows(Protocol):
    """Rows of some column families."""

    @property
    def folder(self) -> Path:
        """The database, for errors."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """The column families that are there."""
        ...

    def get(self, column: str, key: bytes) -> bytes | None:
        """Return the row of a key; None when there is none."""
        ...

    def scan(self, column: str, begin: bytes, end: bytes | None) -> Iterator[list[Row]]:
        """Yield the rows with begin <= key < end, in lists."""
        ...


class HotAndColdRows:
    """Rows of both stores as if they were one. A column family that the cold store lacks is the hot one's alone."""

    def __init__(self, hot: RocksDbReader, cold: RocksDbReader) -> None:
        self._hot = hot
        self._cold = cold

    @property
    def folder(self) -> Path:
        """The hot store."""
        return self._hot.folder

    @property
    def columns(self) -> tuple[str, ...]:
        """The hot store's: it has all that the cold store has."""
        return self._hot.columns

    def get(self, column: str, key: bytes) -> bytes | None:
        """Return the hot store's row of a key, else the cold store's."""
        row = self._hot.get(column, key)
        return self._cold.get(column, key) if row is None and column in self._cold.columns else row

    def scan(self, column: str, begin: bytes, end: bytes | None) -> Iterator[list[Row]]:
        """Yield the hot store's rows, then those of the cold store whose keys it lacks: ascending within each."""
        seen: set[bytes] = set()
        for rows in self._hot.scan(column, begin, end):
            seen.update(key for key, _ in rows)
            yield rows
        if column in self._cold.columns:
            for rows in self._cold.scan(column, begin, end):
                if more := [(key, row) for key, row in rows if key not in seen]:
                    yield more


@contextlib.contextmanager
def open_chain_rows(home: NodeHome, columns: Sequence[str]) -> Iterator[ChainRows]:
    """Open a node's rows of some column families, as they are now.

    Raises:
        SourceError, SourceChangedError, ColumnMissingError: as `RocksDbReader`; the cold store may lack column families.
    """
    with contextlib.ExitStack() as opened:
        hot = opened.enter_context(RocksDbReader(home.data, columns))
        if home.cold_data is None:
            yield hot
            return
        there = set(list_columns(home.cold_data))
        cold = opened.enter_context(RocksDbReader(home.cold_data, [column for column in columns if column in there]))
        yield HotAndColdRows(hot, cold)
