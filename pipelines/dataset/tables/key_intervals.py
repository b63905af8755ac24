"""Which keys belong to chosen accounts and contracts: intervals of trie keys, and the rows of sorted records that lie in them."""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from schemas.nearcore.trie_key import KINDS_BY_FIRST_BYTE, TrieKeyKind

_SINGLE: Final = (TrieKeyKind.ACCOUNT, TrieKeyKind.CONTRACT_CODE)
_GLOBAL: Final = (TrieKeyKind.GLOBAL_CONTRACT_CODE, TrieKeyKind.GLOBAL_CONTRACT_NONCE)
_OF_NO_ACCOUNT: Final = (
    TrieKeyKind.DELAYED_RECEIPT,
    TrieKeyKind.PROMISE_YIELD_INDICES,
    TrieKeyKind.PROMISE_YIELD_TIMEOUT,
    TrieKeyKind.BUFFERED_RECEIPT_INDICES,
    TrieKeyKind.BUFFERED_RECEIPT,
    TrieKeyKind.BANDWIDTH_SCHEDULER_STATE,
    TrieKeyKind.BUFFERED_RECEIPT_GROUPS_QUEUE_DATA,
    TrieKeyKind.BUFFERED_RECEIPT_GROUPS_QUEUE_ITEM,
)
_OF_CONTRACT: Final = (TrieKeyKind.CONTRACT_CODE, TrieKeyKind.CONTRACT_DATA)


@dataclass(frozen=True, slots=True, order=True)
class KeyInterval:
    """Keys from ``begin`` to before ``end``."""

    begin: bytes
    end: bytes

    def overlaps(self, first_key: bytes, last_key: bytes) -> bool:
        """Tell whether any key from a first to a last one, both included, lies in it."""
        return self.begin <= last_key and first_key < self.end


def key_intervals(accounts: Sequence[str], contracts: Sequence[str]) -> tuple[KeyInterval, ...]:
    """Return the intervals of all records of some accounts, and of the code and entries of some contracts; ascending, without overlap.

    Source: nearcore core/primitives/src/trie_key.rs, TrieKey::append_into.
    """
    found = {_interval(first_byte, kinds[0], account) for account in accounts for first_byte, kinds in KINDS_BY_FIRST_BYTE.items()}
    found |= {
        _interval(first_byte, kinds[0], account)
        for account in contracts
        for first_byte, kinds in KINDS_BY_FIRST_BYTE.items()
        if kinds[0] in _OF_CONTRACT
    }
    return tuple(sorted(interval for interval in found if interval is not None))


def _interval(first_byte: int, kind: TrieKeyKind, account: str) -> KeyInterval | None:
    if kind in _OF_NO_ACCOUNT:
        return None
    lead, name = bytes([first_byte]), account.encode()
    if kind in _GLOBAL:
        name = b"\x01" + struct.pack("<I", len(name)) + name
    if kind in _SINGLE or kind in _GLOBAL:
        return KeyInterval(lead + name, lead + name + b"\0")
    # What stands behind the account id is above all of the same id, and below its successor all that begins with both.
    separator = lead if kind is TrieKeyKind.ACCESS_KEY else b","
    return KeyInterval(lead + name + separator, lead + name + bytes([separator[0] + 1]))


def rows_within(batch: pa.RecordBatch, intervals: Sequence[KeyInterval]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of records whose keys lie in intervals.

    Args:
        batch: ascending by ``key``.
        intervals: ascending, without overlap.
    """
    keys = batch.column("key")
    if not len(keys):
        return
    first, last = keys[0].as_py(), keys[-1].as_py()
    start = bisect_left(intervals, first, key=lambda interval: interval.end)
    for interval in intervals[start:]:
        if not interval.overlaps(first, last):
            if interval.begin > last:
                return
            continue
        begin, end = (bisect_left(range(len(keys)), bound, key=lambda row: keys[row].as_py()) for bound in (interval.begin, interval.end))
        if begin < end:
            yield batch.slice(begin, end - begin)
