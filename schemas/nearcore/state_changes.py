"""Rows of the StateChanges column: what a block did to one trie key.

::

    key    block hash (32), trie key, and for keys that name no account the shard uid (8)
    value  TrieKey, vec<RawStateChange>
           RawStateChange = u8 cause, for causes 2 to 6 the 32-byte hash of a transaction or receipt, then option<vec<u8>> data

The last change of a row is what the block left; None there is a removed key. A usual node writes rows for ``RECORDED_KINDS`` alone, so the
column does not tell all that a block did. Nothing here reads a database.

Source: nearcore core/store/src/trie/shard_tries.rs, WrappedTrieChanges::state_changes_into and KeyForStateChanges;
core/primitives/src/types.rs, RawStateChangesWithTrieKey and StateChangeCause; core/primitives/src/trie_key.rs, TrieKey.
"""

from __future__ import annotations

from typing import Final

from schemas.errors import IntegrityError
from schemas.ids import HASH_BYTES
from schemas.nearcore.borsh import BorshReader
from schemas.nearcore.flat_state_limits import KEY_BYTES_MAX, VALUE_BYTES_MAX

ACCOUNT_KIND: Final = 0
CONTRACT_CODE_KIND: Final = 1
ACCESS_KEY_KIND: Final = 2
CONTRACT_DATA_KIND: Final = 9

RECORDED_KINDS: Final = frozenset({ACCOUNT_KIND, CONTRACT_CODE_KIND, ACCESS_KEY_KIND, CONTRACT_DATA_KIND})
"""First bytes of the trie keys whose changes every node records."""

_SEPARATORS: Final = {ACCESS_KEY_KIND: b"\x02", CONTRACT_DATA_KIND: b","}
_CAUSES_WITH_HASH: Final = range(2, 7)
_CAUSES_MAX: Final = 64
_CHANGE_BYTES_MIN: Final = 2


def account_of(trie_key: bytes, where: str) -> str:
    """Return the account id in a trie key of one of the ``RECORDED_KINDS``.

    Raises:
        IntegrityError: there is none.
    """
    rest = trie_key[1:]
    separator = _SEPARATORS.get(trie_key[0])
    if separator is not None:
        rest, found, _ = rest.partition(separator)
        if not found:
            raise IntegrityError(problem=f"the trie key {trie_key.hex()} has no separator after its account", where=where)
    if not rest.isascii() or not rest:
        raise IntegrityError(problem=f"the trie key {trie_key.hex()} has no account id", where=where)
    return rest.decode("ascii")


def decode_last_change(row: bytes, trie_key: bytes, where: str) -> bytes | None:
    """Return what a block left under a key of one of the ``RECORDED_KINDS``; None when it removed the key.

    Args:
        row: the row's value.
        trie_key: from the row's key; the value must be of the same.
        where: the row, for errors.
    Raises:
        IntegrityError: malformed, of another trie key, or over a limit.
    """
    reader = BorshReader(row, where, IntegrityError)
    kind = reader.u8()
    account = reader.byte_vec(KEY_BYTES_MAX)
    key = bytes([kind]) + account
    if kind == CONTRACT_DATA_KIND:
        key += b"," + reader.byte_vec(KEY_BYTES_MAX)
    elif kind == ACCESS_KEY_KIND:
        # A public key has as many bytes as the trie key says.
        key += b"\x02" + reader.fixed(max(0, len(trie_key) - len(key) - 1))
    if key != trie_key or kind not in RECORDED_KINDS:
        reader.fail(f"the row is of trie key {key.hex()}, its own key says {trie_key.hex()}")
    data: bytes | None = None
    changes = reader.count(_CHANGE_BYTES_MIN)
    if not changes:
        reader.fail("the row holds no change")
    for _ in range(changes):
        cause = reader.u8()
        if cause in _CAUSES_WITH_HASH:
            reader.fixed_view(HASH_BYTES)
        elif cause > _CAUSES_MAX:
            reader.fail(f"no change has the cause {cause}")
        data = reader.option(lambda: reader.byte_vec(VALUE_BYTES_MAX))
    reader.end()
    return data
