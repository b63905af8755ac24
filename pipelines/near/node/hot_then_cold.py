"""A node's databases in the order in which a row is looked for: the hot store, then an archival node's cold store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.near.node.node_home import NodeHome
from pipelines.near.node.rocksdb_reader import RocksDbReader


@dataclass(slots=True)
class HotThenCold:
    """The databases, each opened once, and the cold one only when what the hot one has was not enough."""

    home: NodeHome
    open_database: Callable[[Path], RocksDbReader]
    _opened: dict[Path, RocksDbReader] = field(default_factory=dict)

    def __iter__(self) -> Iterator[RocksDbReader]:
        for folder in self.home.databases:
            if folder not in self._opened:
                self._opened[folder] = self.open_database(folder)
            yield self._opened[folder]
