"""Records out of a JSON Lines file: ``{"key": hex, "value": hex}`` a line, in any order, gzip or not.

One shard. Every key may occur once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from pipelines.near.files.sorted_file import SortedFile, content_fingerprint, encode_records
from pipelines.near.files.sorting_source import SortingSource
from pipelines.near.node.flat_state_source import KeyRange
from pipelines.near.node.genesis_head import READ_ERRORS, open_maybe_gzip
from schemas.errors import SourceError
from schemas.ids import ZERO_HASH, ShardUId
from schemas.nearcore.epoch_context import EpochContext, ShardContext
from schemas.nearcore.flat_state_limits import KEY_BYTES_MAX, VALUE_BYTES_MAX

LINE_BYTES_MAX: Final = 2 * (KEY_BYTES_MAX + VALUE_BYTES_MAX) + 256
"""Longest line: key and value in hex, and some JSON around them."""

LOCAL_CHAIN_ID: Final = "local"
"""Chain id of records without a context."""


@dataclass(frozen=True, slots=True)
class RecordsFileSource(SortingSource):
    """A JSON Lines file as a `FlatStateSource`."""

    def describe(self) -> str:
        """Return what is read, for people."""
        return f"records file {self.path}"

    def fingerprint(self, shard: ShardContext) -> str:
        """Return a digest of the file's content.

        Raises:
            SourceError: it can't be read.
        """
        return f"records-{content_fingerprint(self.paths)}"

    def key_ranges(self, shard: ShardContext, range_bytes_target: int) -> tuple[KeyRange, ...]:
        """Return one range: the file is sorted as a whole.

        Raises:
            SourceError: the file is not there.
        """
        open_maybe_gzip(Path(self.path)).close()
        return (KeyRange(b"", None),)

    def records(self, shard: ShardContext, key_range: KeyRange, record_batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
        """Yield the records of a key range, ascending.

        Raises:
            SourceError: not readable, a bad line (its number is named) or a key twice (both lines are named).
        """
        opened = self.sorted()
        entries = opened.sort.entries(key_range.begin, key_range.end)
        yield from encode_records(_unique(entries, self.path), record_batch_bytes_max)

    def read(self, target: SortedFile) -> None:
        """See `SortingSource.read`."""
        _read_lines(Path(self.path), target)


def records_context() -> EpochContext:
    """Return the context of records that come without one: epoch height 0, epoch id and sync hash of zero bytes, shard s0.v0."""
    shard = ShardContext(shard_uid=ShardUId(version=0, shard_id=0), state_root=None)
    return EpochContext(LOCAL_CHAIN_ID, epoch_height=0, epoch_id=ZERO_HASH, sync_hash=ZERO_HASH, protocol_version=0, shards=(shard,))


def _read_lines(path: Path, target: SortedFile) -> None:
    line_number = 0
    try:
        with open_maybe_gzip(path) as file:
            while line := file.readline(LINE_BYTES_MAX + 1):
                line_number += 1
                if not line.isspace():
                    key, value = _record(line, f"{path}, line {line_number}")
                    target.sort.add(key, line_number, target.encode_value(value))
    except READ_ERRORS as error:
        raise SourceError(problem=f"the file can't be read after line {line_number}: {error}", where=str(path)) from None


def _record(line: bytes, where: str) -> tuple[bytes, bytes]:
    if len(line) > LINE_BYTES_MAX:
        raise SourceError(problem=f"a line has at most {LINE_BYTES_MAX} bytes", where=where)
    try:
        # Two texts of digits and nothing else, seen before a parser builds what else the line says: three bytes of JSON can be seventy of memory.
        if b"[" in line or line.count(b"{") != 1 or line.count(b",") != 1:
            raise ValueError("a JSON object of key and value is expected")
        document = json.loads(line)
        if not isinstance(document, dict) or document.keys() != {"key", "value"}:
            raise ValueError("a JSON object of key and value is expected")
        key, value = (bytes.fromhex(document[name]) for name in ("key", "value"))
    except (ValueError, TypeError, RecursionError) as error:
        raise SourceError(problem=f"no record: {error}", where=where, remedy='A line is {"key": hex, "value": hex}.') from None
    if len(key) > KEY_BYTES_MAX or len(value) > VALUE_BYTES_MAX:
        raise SourceError(problem=f"a key has at most {KEY_BYTES_MAX} bytes and a value {VALUE_BYTES_MAX}", where=where)
    return key, value


def _unique(entries: Iterator[tuple[bytes, int, bytes]], path: str) -> Iterator[tuple[bytes, bytes]]:
    previous_key: bytes | None = None
    previous_line = 0
    for key, line_number, payload in entries:
        if key == previous_key:
            raise SourceError(
                problem=f"key {key.hex()} is there twice, in lines {previous_line} and {line_number}",
                where=path,
                remedy="Leave one of them out.",
            )
        previous_key, previous_line = key, line_number
        yield key, payload
