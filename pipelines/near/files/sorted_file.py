"""A file of unsorted records, sorted once a process and kept until it ends or other files are read.

What is in the file and how it becomes entries is up to the reader that is given. Nothing is left behind: the runs lie in a temporary
folder that goes with the process, or with the next run there where it was killed (`pipelines.stores.held_folder`).
"""

from __future__ import annotations

import hashlib
import os
import struct
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from pipelines.near.files.external_sort import ExternalSort, ValueSpill
from pipelines.near.node.genesis_head import plain_size
from pipelines.near.record_batches import bounded
from pipelines.stores.held_folder import HeldFolder, make_held_folder
from pipelines.stores.regular_file import open_regular
from schemas.dataset.flat_state import RECORD_SCHEMA, VALUE_SCHEMA
from schemas.errors import SourceChangedError, SourceError, ValueMismatchError
from schemas.nearcore.flat_state_limits import INLINED_VALUE_BYTES_MAX

SORTED_FILES_MAX: Final = 2
"""Sorted files that a process keeps."""

COPY_RATIO_LEAST: Final = 0.45
COPY_RATIO_MOST: Final = 0.8
"""Bytes of a sorted copy a byte of the files, as JSON: 0.48 for a genesis of accounts and keys, 0.5 for lines of hex, 0.75 for long data in base64."""

_INLINED: Final = 1
_REF: Final = 0
_READ_BYTES: Final = 1 << 20
_BATCH_ROWS: Final = 1024


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class SortedFile:
    """The entries of a file."""

    sort: ExternalSort
    values: ValueSpill

    def encode_value(self, value: bytes) -> bytes:
        """Return a value as the payload of an entry: the value itself or, when it is long, a reference.

        Raises:
            SourceError: the temporary folder can't be written.
        """
        if len(value) <= INLINED_VALUE_BYTES_MAX:
            return inlined(value)
        return struct.pack("<BI", _REF, len(value)) + self.values.put(value)


@dataclass(frozen=True, slots=True)
class SortedSize:
    """What a sorted copy takes on disk, about, in bytes."""

    least: int
    most: int
    """While runs are merged, both they and what they become are there."""


def sorted_size(paths: Sequence[Path]) -> SortedSize:
    """Return what the sorted copy of some files will take, by their lengths: a record's bytes in hex or base64 and a few words around them.

    Raises:
        SourceError: a file can't be read.
    """
    plain = sum(map(plain_size, paths))
    return SortedSize(int(plain * COPY_RATIO_LEAST), int(plain * COPY_RATIO_MOST * 2))


def inlined(value: bytes) -> bytes:
    """Return a short value as the payload of an entry."""
    return bytes([_INLINED]) + value


def sorted_file(paths: Sequence[Path], read: Callable[[SortedFile], None], scratch: str | None) -> SortedFile:
    """Return the sorted entries of some files, sorting them at first use.

    Args:
        paths: what is read.
        scratch: folder in which a copy of all is made; None for where temporary files go.
        read: adds all entries; called once.
    Raises:
        SourceError: from ``read``; SourceChangedError when a file changed meanwhile.
    """
    with _lock:
        state = tuple(_state(path) for path in paths)
        name = (os.getpid(), *map(str, paths), *state)
        found = _cache.get(name)
        if found is None:
            found = _new_sorted_file(None if scratch is None else Path(scratch))
            read(found)
            found.sort.flush()
            for path, before in zip(paths, state, strict=True):
                if _state(path) != before:
                    raise SourceChangedError(problem="the file changed while it was read", where=str(path), remedy="Run again.")
            _cache[name] = found
            while len(_cache) > SORTED_FILES_MAX:
                _cache.popitem(last=False)
        _cache.move_to_end(name)
        return found


def encode_records(rows: Iterable[tuple[bytes, bytes]], record_batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
    """Yield record batches of ``RECORD_SCHEMA`` from ascending keys and encoded values (`SortedFile.encode_value`)."""
    yield from bounded(_batches(rows), record_batch_bytes_max)


def value_batches(values: ValueSpill, value_hashes: Sequence[bytes], record_batch_bytes_max: int, where: str) -> Iterator[pa.RecordBatch]:
    """Yield large values as record batches of ``VALUE_SCHEMA``, in the order asked for.

    Raises:
        ValueMismatchError: a value is not in the file.
    """

    def rows() -> Iterator[pa.RecordBatch]:
        for value_hash in value_hashes:
            value = values.get(value_hash)
            if value is None or hashlib.sha256(value).digest() != value_hash:
                raise ValueMismatchError(problem=f"no value in the file has sha256 {value_hash.hex()}", where=where)
            yield pa.RecordBatch.from_arrays([pa.array([value_hash], pa.binary(32)), pa.array([value], pa.binary())], schema=VALUE_SCHEMA)

    yield from bounded(rows(), record_batch_bytes_max)


def content_fingerprint(paths: Sequence[Path]) -> str:
    """Return a digest of files' contents.

    Raises:
        SourceError: a file can't be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            with open_regular(path) as file:
                while part := file.read(_READ_BYTES):
                    digest.update(part)
        except OSError as error:
            raise SourceError(problem=f"the file can't be read: {error.strerror}", where=str(path)) from None
        digest.update(b"\0")
    return digest.hexdigest()[:32]


def _new_sorted_file(scratch: Path | None) -> SortedFile:
    folder = make_held_folder("sort", scratch)
    values = ValueSpill(folder.path)
    found = SortedFile(ExternalSort(folder.path), values)
    # The folder goes with the last reader of it, and at the latest with the process.
    weakref.finalize(found, _remove, folder, values)
    return found


def _remove(folder: HeldFolder, values: ValueSpill) -> None:
    values.close()
    folder.close()


def _state(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError as error:
        raise SourceError(problem=f"the file can't be read: {error.strerror}", where=str(path)) from None
    return stat.st_size, stat.st_mtime_ns


def _batches(rows: Iterable[tuple[bytes, bytes]]) -> Iterator[pa.RecordBatch]:
    keys: list[bytes] = []
    values: list[bytes | None] = []
    lengths: list[int] = []
    hashes: list[bytes | None] = []
    for key, encoded in rows:
        keys.append(key)
        if encoded[0] == _INLINED:
            values.append(encoded[1:])
            lengths.append(len(encoded) - 1)
            hashes.append(None)
        else:
            values.append(None)
            lengths.append(int.from_bytes(encoded[1:5], "little"))
            hashes.append(encoded[5:])
        if len(keys) == _BATCH_ROWS:
            yield _batch(keys, values, lengths, hashes)
            keys, values, lengths, hashes = [], [], [], []
    if keys:
        yield _batch(keys, values, lengths, hashes)


def _batch(keys: list[bytes], values: list[bytes | None], lengths: list[int], hashes: list[bytes | None]) -> pa.RecordBatch:
    columns = [pa.array(keys, pa.binary()), pa.array(values, pa.binary()), pa.array(lengths, pa.uint32()), pa.array(hashes, pa.binary(32))]
    return pa.RecordBatch.from_arrays(columns, schema=RECORD_SCHEMA)


_cache: OrderedDict[tuple[object, ...], SortedFile] = OrderedDict()
_lock = threading.Lock()
