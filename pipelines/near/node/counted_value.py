"""Payloads out of reference-counted rows.

nearcore keeps a row of State as payload and count, and joins pending writes with a merge operator of its own. Read through RocksDB's
string append operator (see `pipelines.near.node.rocksdb_reader`) a row is one or more entries with a delimiter between them, an entry
being one of

- payload, i64 count: what was written, or the result of an earlier merge;
- i64 count: a removal, written without its payload;
- nothing: the result of a merge that came out at zero.

An archival node's cold store has the bare payload and no count. The hash of the wanted payload is known, so whatever hashes right is
right, and counts need not be summed: a payload that is still there is still true.

Source: nearcore core/store/src/db/refcount.rs.
"""

from __future__ import annotations

import hashlib
from typing import Final

_COUNT_BYTES: Final = 8


def find_payload(row: bytes, value_hash: bytes, delimiter: bytes) -> bytes | None:
    """Return the payload of a row whose sha256 is ``value_hash``; None when it has none.

    Args:
        delimiter: what stands between entries; no payload contains it.
    """
    for entry in row.split(delimiter):
        for payload in (entry[:-_COUNT_BYTES], entry):
            if hashlib.sha256(payload).digest() == value_hash:
                return payload
    return None
