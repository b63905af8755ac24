"""Cutting a shard's flat state into key ranges without reading it.

SST files say how many bytes lie between which keys. Where files alone give no cut (one big file, or files over the whole shard),
the kinds of records are told apart by their first byte, and inside a kind keys are interpolated and snapped to rows that exist.
How many bytes lie inside a kind is not known, so each is cut as if it were all: rather too many small ranges than one long one.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from pipelines.near.node.rocksdb_reader import DatabaseFile

RANGES_MAX: Final = 1 << 16
"""Most key ranges that a shard is cut into."""

_INTERPOLATED_BYTES: Final = 8
_SHARD_UID_BYTES: Final = 8
_ABOVE_ALL_KEYS: Final = b"\xff" * 64
"""No account id and no public key type begins like this."""


@dataclass(frozen=True, slots=True)
class ExistingKeys:
    """Look-ups of keys that exist."""

    at_or_after: Callable[[bytes], bytes | None]
    """The first that is not below the given one."""
    at_or_before: Callable[[bytes], bytes | None]
    """The last that is not above the given one."""


def split_keys(
    files: Iterable[DatabaseFile],
    first_key: bytes,
    last_key: bytes,
    range_bytes_target: int,
    keys: ExistingKeys,
) -> tuple[bytes, ...]:
    """Return the database keys at which new ranges begin, ascending; none of them is ``first_key``.

    Args:
        files: of the column family, in any order; those outside the shard are ignored.
        first_key: the shard's first row.
        last_key: the shard's last row.
        range_bytes_target: stored bytes a range, about.
        keys: look-ups in the column family.
    """
    inside = sorted(
        ((max(file.first_key, first_key), file.size) for file in files if file.first_key <= last_key and file.last_key >= first_key),
        key=lambda file: file[0],
    )
    target = max(range_bytes_target, sum(size for _, size in inside) // RANGES_MAX, 1)
    cuts: list[bytes] = []
    begin, weight = first_key, 0
    for file_first, size in inside:
        if weight >= target and file_first > begin:
            cuts += _inside(begin, file_first, weight // target, keys)
            cuts.append(file_first)
            begin, weight = file_first, 0
        weight += size
    cuts += _inside(begin, last_key, weight // target, keys)
    # A file's first key need not be a row of this view, and interpolation may snap twice to one row: both only merge ranges.
    distinct = sorted({cut for cut in cuts if first_key < cut <= last_key})
    return tuple(distinct[:: -(-len(distinct) // (RANGES_MAX - 1)) or 1])


def _inside(begin: bytes, end: bytes, pieces: int, keys: ExistingKeys) -> list[bytes]:
    """Return existing keys that cut [begin, end) at each kind of record, and each kind into about ``pieces`` pieces."""
    if pieces < 2:
        return []
    starts = [begin]
    while starts[-1][_SHARD_UID_BYTES : _SHARD_UID_BYTES + 1] < b"\xff":
        kind = starts[-1][_SHARD_UID_BYTES : _SHARD_UID_BYTES + 1] or b"\0"
        next_kind = keys.at_or_after(begin[:_SHARD_UID_BYTES] + bytes([kind[0] + 1]))
        if next_kind is None or not starts[-1] < next_kind < end:
            break
        starts.append(next_kind)
    cuts = starts[1:]
    for left, right in zip(starts, [*starts[1:], end], strict=True):
        # Up to the kind's own last key: the next kind's first one lies far behind it.
        last = right if right is end else keys.at_or_before(left[: _SHARD_UID_BYTES + 1] + _ABOVE_ALL_KEYS)
        cuts += _interpolated(left, last or right, pieces, keys)
    return cuts


def _interpolated(begin: bytes, end: bytes, pieces: int, keys: ExistingKeys) -> list[bytes]:
    """Return existing keys that cut [begin, end) into about ``pieces`` pieces."""
    shared = bisect.bisect_left(range(min(len(begin), len(end))), True, key=lambda index: begin[: index + 1] != end[: index + 1])
    low = int.from_bytes(begin[shared : shared + _INTERPOLATED_BYTES].ljust(_INTERPOLATED_BYTES, b"\0"), "big")
    high = int.from_bytes(end[shared : shared + _INTERPOLATED_BYTES].ljust(_INTERPOLATED_BYTES, b"\0"), "big")
    cuts = []
    for piece in range(1, pieces):
        wanted = low + (high - low) * piece // pieces
        key = keys.at_or_after(begin[:shared] + wanted.to_bytes(_INTERPOLATED_BYTES, "big"))
        if key is not None and begin < key < end:
            cuts.append(key)
    return cuts
