"""Parquet files of decoded tables: one kind of record of one span, put together in memory and stored whole.

Row groups are small and sorted, with what lets a reader pass over them: statistics, a page index, and a Bloom filter on account ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.stores.store import Store
from schemas.dataset.tables_selection import EPOCH_FIELDS, SORTED_BY_ACCOUNT
from schemas.dataset.tables_summary import TableFile, TablesShard, table_constants, table_folder, table_metadata
from schemas.nearcore.trie_key import TrieKeyKind

ROW_GROUP_BYTES_MAX: Final = 1 << 20
"""Most bytes of a row group before compression, but for a single row: what a reader of one account pays is less."""

PAGE_BYTES: Final = 1 << 16
"""Bytes of a page at which the next begins: what the page index tells apart."""

BLOOM_ACCOUNTS: Final = 2048
BLOOM_FALSE_POSITIVES: Final = 0.01
"""A row group's Bloom filter on account ids: so many different ones are told apart so well. It has 4 KiB."""

_UNREPEATING: Final = ("key", "value", "value_hash", "public_key", "nonce", "data_key")
"""Columns of which a dictionary would cost time and save nothing."""

_WITHOUT_STATISTICS: Final = ("value", "value_hash")
"""Nobody looks for a range of these, and bounds of values are long."""

_CONSTANTS: Final = tuple(field.name for field in EPOCH_FIELDS)


def write_tables(
    store: Store, shard: TablesShard, batches: Iterable[pa.RecordBatch], stem: str, *, ascending: bool = True
) -> tuple[TableFile, ...]:
    """Store decoded records as a Parquet file for each kind in them.

    Args:
        shard: whose records they are, and what is selected of them; its files don't matter.
        batches: with at least ``kind`` and the selected columns of their records' kinds.
        stem: of the files' names.
        ascending: whether the records are in key order.
    """
    writers: dict[str, KindWriter] = {}
    for batch in batches:
        table = pa.Table.from_batches([batch])
        kinds = table.column("kind").unique().to_pylist()
        for kind in kinds:
            of_kind = table if len(kinds) == 1 else table.filter(pc.equal(table.column("kind"), kind))
            if kind not in writers:
                writers[kind] = KindWriter(shard, TrieKeyKind(kind), ascending=ascending)
            writers[kind].add(of_kind)
    return tuple(writer.put(store, stem) for writer in writers.values())


def rewrite_table(store: Store, shard: TablesShard, kind: TrieKeyKind, data: pa.Buffer, stem: str) -> TableFile:
    """Store the records of another epoch's file as this epoch's: the bytes that decoding them would give.

    Args:
        data: a file of the same kind and selection.
    """
    writer = KindWriter(shard, kind)
    for group in _row_groups(data):
        writer.add_group(group)
    return writer.put(store, stem)


class KindWriter:
    """Puts one kind's Parquet file together, a row group at a time."""

    def __init__(self, shard: TablesShard, kind: TrieKeyKind, *, ascending: bool = True) -> None:
        """Take what the file is of.

        Args:
            ascending: whether the records come in key order.
        """
        self._shard, self._kind = shard, kind
        self._schema = shard.selection.schema(kind).with_metadata(table_metadata(shard, kind))
        self._own = [name for name in self._schema.names if name not in _CONSTANTS]
        self._constants = table_constants(shard)
        self._order = self._sorting() if ascending else ()
        self._last_account: str | None = None
        self._sink = pa.BufferOutputStream()
        self._writer = self._opened(self._sink)
        self._waiting: list[pa.Table] = []
        self._waiting_bytes = 0
        self._records = 0
        self._decode_errors = 0

    def add(self, table: pa.Table) -> None:
        """Take records of the kind; they are cut into row groups."""
        for piece in _pieces(table.select(self._own)):
            if self._waiting_bytes + piece.nbytes > ROW_GROUP_BYTES_MAX:
                self._flush()
            self._waiting.append(piece)
            self._waiting_bytes += piece.nbytes

    def add_group(self, table: pa.Table) -> None:
        """Take records of the kind as a row group of their own."""
        self._flush()
        table = table.select(self._own)
        self._records += table.num_rows
        self._decode_errors += table.num_rows - table.column("decode_error").null_count
        if self._order[:1] == ("account_id",) and not self._goes_on(table.column("account_id")):
            self._order = ("key",) if "key" in self._own else ()
        columns = {name: pa.repeat(constant, table.num_rows) for name, constant in self._constants.items()}
        columns |= {name: table.column(name) for name in self._own}
        whole = pa.Table.from_arrays([columns[name] for name in self._schema.names], schema=self._schema)
        self._writer.write_table(whole, row_group_size=max(1, whole.num_rows))

    def put(self, store: Store, stem: str) -> TableFile:
        """Store the file."""
        self._flush()
        self._writer.close()
        data = self._sink.getvalue()
        if self._order != self._claimed:
            data = self._unsorted(data)
        shard = self._shard
        folder = table_folder(self._kind, shard.context.chain_id, shard.context.epoch_height, shard.shard_uid.shard_id)
        name = f"{folder}/{stem}.parquet"
        store.put(name, data)
        return TableFile(name, str(self._kind), self._records, self._decode_errors, data.size, hashlib.sha256(data).hexdigest())

    def _flush(self) -> None:
        if self._waiting:
            waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
            self.add_group(pa.concat_tables(waiting))

    def _sorting(self) -> tuple[str, ...]:
        wanted = ("account_id", "key") if self._kind in SORTED_BY_ACCOUNT else ("key",)
        return tuple(name for name in wanted if name in self._own)

    def _goes_on(self, accounts: pa.ChunkedArray) -> bool:
        """Tell whether account ids ascend from those before; a record whose key does not decode has none."""
        accounts = accounts.combine_chunks()
        if accounts.null_count:
            return False
        first, last = accounts[0].as_py(), accounts[-1].as_py()
        ascend = (self._last_account is None or self._last_account <= first) and pc.all(
            pc.less_equal(accounts[:-1], accounts[1:]), min_count=0
        ).as_py()
        self._last_account = last
        return bool(ascend)

    def _opened(self, sink: pa.NativeFile) -> pq.ParquetWriter:
        self._claimed = self._order
        names = self._schema.names
        flat = [field.name for field in self._schema if not pa.types.is_nested(field.type)]
        bloom = {"account_id": {"ndv": BLOOM_ACCOUNTS, "fpp": BLOOM_FALSE_POSITIVES}} if "account_id" in names else None
        return pq.ParquetWriter(
            sink,
            self._schema,
            compression="zstd",
            use_dictionary=[name for name in names if name not in _UNREPEATING],
            write_statistics=[name for name in flat if name not in _WITHOUT_STATISTICS],
            write_page_index=True,
            data_page_size=PAGE_BYTES,
            sorting_columns=[pq.SortingColumn(names.index(name)) for name in self._order] or None,
            bloom_filter_options=bloom,
        )

    def _unsorted(self, data: pa.Buffer) -> pa.Buffer:
        """Write a file again that is not in the order that it claims: there are records whose keys do not decode."""
        sink = pa.BufferOutputStream()
        with self._opened(sink) as writer:
            for group in _row_groups(data):
                writer.write_table(group.replace_schema_metadata(self._schema.metadata), row_group_size=group.num_rows)
        return sink.getvalue()


def _row_groups(data: pa.Buffer) -> Iterator[pa.Table]:
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        for index in range(file.num_row_groups):
            yield file.read_row_group(index)


def _pieces(table: pa.Table) -> Iterator[pa.Table]:
    """Cut records into pieces that fit a row group, by halves."""
    if table.num_rows < 2 or table.nbytes <= ROW_GROUP_BYTES_MAX:
        if table.num_rows:
            yield table
        return
    middle = table.num_rows // 2
    yield from _pieces(table.slice(0, middle))
    yield from _pieces(table.slice(middle))
