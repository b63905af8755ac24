"""The chain's rows of a node: those of the hot store, and of an archival node's cold store what the hot one no longer has."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from pipelines.near.node.hot_then_cold import HotThenCold
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
    """Rows of both stores as if they were one. A column family that one of them lacks is the other's alone."""

    def __init__(self, stores: HotThenCold) -> None:
        self._stores = stores

    @property
    def folder(self) -> Path:
        """The hot store."""
        return self._stores.home.data

    @property
    def columns(self) -> tuple[str, ...]:
        """The hot store's: it has all that the cold store has."""
        return next(iter(self._stores)).columns

    def get(self, column: str, key: bytes) -> bytes | None:
        """Return the hot store's row of a key, else the cold store's."""
        return next((row for store in self._stores if column in store.columns and (row := store.get(column, key)) is not None), None)

    def scan(self, column: str, begin: bytes, end: bytes | None) -> Iterator[list[Row]]:
        """Yield the hot store's rows, then those of the cold store whose keys it lacks: ascending within each."""
        seen: set[bytes] = set()
        for store in self._stores:
            for rows in store.scan(column, begin, end) if column in store.columns else ():
                more = [(key, row) for key, row in rows if key not in seen]
                seen.update(key for key, _ in more)
                if more:
                    yield more


@contextlib.contextmanager
def open_chain_rows(home: NodeHome, columns: Sequence[str]) -> Iterator[ChainRows]:
    """Open a node's rows of some column families, as they are now; those that a store lacks are left out.

    Raises:
        SourceError, SourceChangedError: as `RocksDbReader`.
    """
    with contextlib.ExitStack() as opened:

        def open_database(folder: Path) -> RocksDbReader:
            there = set(list_columns(folder))
            return opened.enter_context(RocksDbReader(folder, [column for column in columns if column in there]))

        stores = HotThenCold(home, open_database)
        next(iter(stores))
        yield HotAndColdRows(stores)
