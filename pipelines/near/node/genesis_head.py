"""The configuration part of a genesis file, streamed: the file may hold gigabytes of records.

Only the fields that are asked for are built; nothing here looks at a record.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Collection
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Final, cast

import ijson
from ijson.common import ObjectBuilder

from pipelines.near.node.bounded_json import BoundedJson
from pipelines.stores.regular_file import open_regular
from schemas.errors import SourceError

READ_ERRORS: Final = (OSError, EOFError, zlib.error)
"""What reading a file of `open_maybe_gzip` raises where it is cut off or damaged."""

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_LENGTH_BYTES = 4


def open_maybe_gzip(path: Path) -> IO[bytes]:
    """Open a file for reading, decompressing it when it begins as gzip does.

    Raises:
        SourceError: it can't be read.
    """
    try:
        with open_regular(path) as file:
            is_gzip = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        return cast(IO[bytes], gzip.open(path)) if is_gzip else path.open("rb")
    except OSError as error:
        raise SourceError(problem=f"the file can't be read: {error.strerror}", where=str(path)) from None


def plain_size(path: Path) -> int:
    """Return how long a file of `open_maybe_gzip` is when it is read; of one that is compressed the least that its length allows.

    A gzip file ends in its content's length modulo 2**32 (RFC 1952), and content is hardly ever longer compressed than not.

    Raises:
        SourceError: it can't be read.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if file.read(len(_GZIP_MAGIC)) != _GZIP_MAGIC or size < _GZIP_LENGTH_BYTES:
                return size
            file.seek(size - _GZIP_LENGTH_BYTES)
            length = int.from_bytes(file.read(_GZIP_LENGTH_BYTES), "little")
    except OSError as error:
        raise SourceError(problem=f"the file can't be read: {error.strerror}", where=str(path)) from None
    wraps = max(0, size - length) >> (8 * _GZIP_LENGTH_BYTES)
    return length + (wraps << (8 * _GZIP_LENGTH_BYTES))


def read_genesis_fields(path: Path, names: Collection[str]) -> dict[str, Any]:
    """Return some top-level fields of a genesis file; those that it lacks are left out.

    Reading stops when all are found, so a file with its records at the end (as nearcore writes it) is read no further than them.

    Raises:
        SourceError: not readable, over a limit of `BoundedJson`, or not a JSON object.
    """
    fields: dict[str, Any] = {}
    builder: ObjectBuilder | None = None
    name = ""
    try:
        with open_maybe_gzip(path) as file:
            for prefix, event, value in ijson.parse(BoundedJson(file, str(path)), use_float=False):
                if builder is not None:
                    builder.event(event, value)
                    if prefix == name and event in _CLOSING:
                        fields[name] = _plain(builder.value)
                        builder = None
                elif prefix in names and "." not in prefix and prefix not in fields:
                    if event in ("start_map", "start_array"):
                        builder, name = ObjectBuilder(), prefix
                        builder.event(event, value)
                    else:
                        fields[prefix] = _plain(value)
                if len(fields) == len(names):
                    break
    except (ijson.JSONError, UnicodeDecodeError, *READ_ERRORS) as error:
        raise SourceError(problem=f"the genesis file is not JSON: {error}", where=str(path)) from None
    return fields


_CLOSING = ("end_map", "end_array")


def _plain(value: Any) -> Any:
    """Turn the decimals of a streamed document into numbers."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
