"""Trie keys: the encoders of those that a genesis file can make, and the parser of all.

Source: nearcore core/primitives/src/trie_key.rs, TrieKey::append_into and module ``col``; near-crypto's PublicKeyHandle.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from schemas.errors import MalformedValueError
from schemas.ids import CryptoHash, base58_encode
from schemas.nearcore.account import ACCOUNT_ID_BYTES_MAX
from schemas.nearcore.borsh import BorshReader

_ACCOUNT: Final = b"\x00"
_CONTRACT_CODE: Final = b"\x01"
_ACCESS_KEY: Final = b"\x02"
_RECEIVED_DATA: Final = b"\x03"
_POSTPONED_RECEIPT_ID: Final = b"\x04"
_PENDING_DATA_COUNT: Final = b"\x05"
_POSTPONED_RECEIPT: Final = b"\x06"
_DELAYED_RECEIPTS: Final = b"\x07"
_CONTRACT_DATA: Final = b"\x09"
_PROMISE_YIELD_RECEIPT: Final = b"\x0c"
_SEPARATOR: Final = b","


def account_key(account_id: str) -> bytes:
    """Return the key of an account."""
    return _ACCOUNT + account_id.encode()


def contract_code_key(account_id: str) -> bytes:
    """Return the key of an account's contract code."""
    return _CONTRACT_CODE + account_id.encode()


def access_key_key(account_id: str, public_key: bytes) -> bytes:
    """Return the key of an access key; ``public_key`` is borsh. The separator is the kind's own byte."""
    return _ACCESS_KEY + account_id.encode() + _ACCESS_KEY + public_key


def gas_key_nonce_key(account_id: str, public_key: bytes, index: int) -> bytes:
    """Return the key of a nonce of a gas key; ``public_key`` is borsh."""
    return access_key_key(account_id, public_key) + index.to_bytes(2, "little")


def contract_data_key(account_id: str, data_key: bytes) -> bytes:
    """Return the key of a contract's storage entry."""
    return _CONTRACT_DATA + account_id.encode() + _SEPARATOR + data_key


def received_data_key(account_id: str, data_id: bytes) -> bytes:
    """Return the key of data that a receipt waits for and that has come."""
    return _RECEIVED_DATA + account_id.encode() + _SEPARATOR + data_id


def postponed_receipt_id_key(receiver_id: str, data_id: bytes) -> bytes:
    """Return the key that names the receipt that waits for some data."""
    return _POSTPONED_RECEIPT_ID + receiver_id.encode() + _SEPARATOR + data_id


def pending_data_count_key(receiver_id: str, receipt_id: bytes) -> bytes:
    """Return the key of the number of data that a receipt still waits for."""
    return _PENDING_DATA_COUNT + receiver_id.encode() + _SEPARATOR + receipt_id


def postponed_receipt_key(receiver_id: str, receipt_id: bytes) -> bytes:
    """Return the key of a receipt that waits for data."""
    return _POSTPONED_RECEIPT + receiver_id.encode() + _SEPARATOR + receipt_id


def promise_yield_receipt_key(receiver_id: str, data_id: bytes) -> bytes:
    """Return the key of a yielded promise."""
    return _PROMISE_YIELD_RECEIPT + receiver_id.encode() + _SEPARATOR + data_id


def delayed_receipt_key(index: int) -> bytes:
    """Return the key of a place in the shard's queue of delayed receipts."""
    return _DELAYED_RECEIPTS + struct.pack("<Q", index)


def delayed_receipt_indices_key() -> bytes:
    """Return the key of the ends of the shard's queue of delayed receipts."""
    return _DELAYED_RECEIPTS


class TrieKeyKind(StrEnum):
    """What a trie key names; one kind where nearcore's enum TrieKey has one variant."""

    ACCOUNT = "account"
    CONTRACT_CODE = "contract_code"
    ACCESS_KEY = "access_key"
    GAS_KEY_NONCE = "gas_key_nonce"
    RECEIVED_DATA = "received_data"
    POSTPONED_RECEIPT_ID = "postponed_receipt_id"
    PENDING_DATA_COUNT = "pending_data_count"
    POSTPONED_RECEIPT = "postponed_receipt"
    DELAYED_RECEIPT_INDICES = "delayed_receipt_indices"
    DELAYED_RECEIPT = "delayed_receipt"
    CONTRACT_DATA = "contract_data"
    PROMISE_YIELD_INDICES = "promise_yield_indices"
    PROMISE_YIELD_TIMEOUT = "promise_yield_timeout"
    PROMISE_YIELD_RECEIPT = "promise_yield_receipt"
    BUFFERED_RECEIPT_INDICES = "buffered_receipt_indices"
    BUFFERED_RECEIPT = "buffered_receipt"
    BANDWIDTH_SCHEDULER_STATE = "bandwidth_scheduler_state"
    BUFFERED_RECEIPT_GROUPS_QUEUE_DATA = "buffered_receipt_groups_queue_data"
    BUFFERED_RECEIPT_GROUPS_QUEUE_ITEM = "buffered_receipt_groups_queue_item"
    GLOBAL_CONTRACT_CODE = "global_contract_code"
    GLOBAL_CONTRACT_NONCE = "global_contract_nonce"
    PROMISE_YIELD_STATUS = "promise_yield_status"
    YIELD_ID_TO_DATA_ID = "yield_id_to_data_id"
    DATA_ID_TO_YIELD_ID = "data_id_to_yield_id"
    UNKNOWN = "unknown"


KINDS_BY_FIRST_BYTE: Final[dict[int, tuple[TrieKeyKind, ...]]] = {
    0: (TrieKeyKind.ACCOUNT,),
    1: (TrieKeyKind.CONTRACT_CODE,),
    2: (TrieKeyKind.ACCESS_KEY, TrieKeyKind.GAS_KEY_NONCE),
    3: (TrieKeyKind.RECEIVED_DATA,),
    4: (TrieKeyKind.POSTPONED_RECEIPT_ID,),
    5: (TrieKeyKind.PENDING_DATA_COUNT,),
    6: (TrieKeyKind.POSTPONED_RECEIPT,),
    7: (TrieKeyKind.DELAYED_RECEIPT, TrieKeyKind.DELAYED_RECEIPT_INDICES),
    9: (TrieKeyKind.CONTRACT_DATA,),
    10: (TrieKeyKind.PROMISE_YIELD_INDICES,),
    11: (TrieKeyKind.PROMISE_YIELD_TIMEOUT,),
    12: (TrieKeyKind.PROMISE_YIELD_RECEIPT,),
    13: (TrieKeyKind.BUFFERED_RECEIPT_INDICES,),
    14: (TrieKeyKind.BUFFERED_RECEIPT,),
    15: (TrieKeyKind.BANDWIDTH_SCHEDULER_STATE,),
    16: (TrieKeyKind.BUFFERED_RECEIPT_GROUPS_QUEUE_DATA,),
    17: (TrieKeyKind.BUFFERED_RECEIPT_GROUPS_QUEUE_ITEM,),
    18: (TrieKeyKind.GLOBAL_CONTRACT_CODE,),
    19: (TrieKeyKind.GLOBAL_CONTRACT_NONCE,),
    20: (TrieKeyKind.PROMISE_YIELD_STATUS,),
    22: (TrieKeyKind.YIELD_ID_TO_DATA_ID,),
    23: (TrieKeyKind.DATA_ID_TO_YIELD_ID,),
}
"""Which kinds a trie key's first byte can mean; a key that begins with another byte, or is empty, is of an unknown kind."""

# By borsh tag, how a key is shown and how long it is. 2 is a whole ML-DSA-65 key, of which the trie has the hash only.
_KEY_HANDLES: Final = {0: ("ed25519:", 32), 1: ("secp256k1:", 64), 3: ("ml-dsa-65-hash:", 32)}

_HASH_SUFFIX: Final = {
    TrieKeyKind.RECEIVED_DATA: "data_id",
    TrieKeyKind.POSTPONED_RECEIPT_ID: "data_id",
    TrieKeyKind.PENDING_DATA_COUNT: "receipt_id",
    TrieKeyKind.POSTPONED_RECEIPT: "receipt_id",
    TrieKeyKind.PROMISE_YIELD_RECEIPT: "data_id",
    TrieKeyKind.PROMISE_YIELD_STATUS: "data_id",
    TrieKeyKind.YIELD_ID_TO_DATA_ID: "yield_id",
    TrieKeyKind.DATA_ID_TO_YIELD_ID: "data_id",
}
"""Kinds whose key is an account id, a comma and a hash: what the hash is."""

_SINGLETONS: Final = (
    TrieKeyKind.PROMISE_YIELD_INDICES,
    TrieKeyKind.BUFFERED_RECEIPT_INDICES,
    TrieKeyKind.BANDWIDTH_SCHEDULER_STATE,
)


@dataclass(frozen=True, slots=True)
class TrieKey:
    """What a trie key says; a field that its kind does not have is None."""

    kind: TrieKeyKind
    account_id: str | None = None
    """The account that the record belongs to; of postponed receipts and the like, the receiver; of a global contract, the account that deployed it."""
    public_key: str | None = None
    """As NEAR shows it: ``ed25519:…``."""
    nonce_index: int | None = None
    data_key: bytes | None = None
    """A contract's own key."""
    data_id: CryptoHash | None = None
    receipt_id: CryptoHash | None = None
    yield_id: CryptoHash | None = None
    code_hash: CryptoHash | None = None
    """Of a global contract that is named by its hash."""
    queue_index: int | None = None
    receiving_shard_id: int | None = None


def parse_trie_key(key: bytes) -> TrieKey:
    """Tell what a trie key names.

    Returns:
        Its parts; kind UNKNOWN for an empty key or a first byte without a meaning.
    Raises:
        MalformedValueError: the kind is known, but the rest is not such a key.
    """
    kinds = KINDS_BY_FIRST_BYTE.get(key[0] if key else -1)
    if kinds is None:
        return TrieKey(TrieKeyKind.UNKNOWN)
    kind = kinds[0]
    reader = BorshReader(key, f"trie key {key[:80].hex()}", MalformedValueError)
    reader.u8()
    if kind in _SINGLETONS:
        parsed = TrieKey(kind)
    elif kind in (TrieKeyKind.ACCOUNT, TrieKeyKind.CONTRACT_CODE):
        parsed = TrieKey(kind, _account_id(reader, reader.fixed(reader.remaining)))
    elif kind is TrieKeyKind.ACCESS_KEY:
        parsed = _parse_access_key(key, reader)
    elif kind is TrieKeyKind.CONTRACT_DATA:
        account_id = _account_id_before(key, _SEPARATOR, reader)
        parsed = TrieKey(kind, account_id, data_key=reader.fixed(reader.remaining))
    elif kind in _HASH_SUFFIX:
        account_id = _account_id_before(key, _SEPARATOR, reader)
        parsed = TrieKey(kind, account_id, **{_HASH_SUFFIX[kind]: CryptoHash(reader.fixed(32))})  # type: ignore[arg-type]
    elif kind in (TrieKeyKind.GLOBAL_CONTRACT_CODE, TrieKeyKind.GLOBAL_CONTRACT_NONCE):
        parsed = _parse_global_contract(kind, reader)
    else:
        parsed = _parse_queue(kind, reader)
    reader.end()
    return parsed


def _parse_queue(kind: TrieKeyKind, reader: BorshReader) -> TrieKey:
    if kind is TrieKeyKind.DELAYED_RECEIPT and not reader.remaining:
        return TrieKey(TrieKeyKind.DELAYED_RECEIPT_INDICES)
    if kind in (TrieKeyKind.DELAYED_RECEIPT, TrieKeyKind.PROMISE_YIELD_TIMEOUT):
        return TrieKey(kind, queue_index=reader.u64())
    # A buffered receipt's shard has 16 bits, to keep the trie flat; the others' have 64.
    shard_id = reader.u16() if kind is TrieKeyKind.BUFFERED_RECEIPT else reader.u64()
    index = None if kind is TrieKeyKind.BUFFERED_RECEIPT_GROUPS_QUEUE_DATA else reader.u64()
    return TrieKey(kind, receiving_shard_id=shard_id, queue_index=index)


def _parse_access_key(key: bytes, reader: BorshReader) -> TrieKey:
    account_id = _account_id_before(key, _ACCESS_KEY, reader)
    tag = reader.u8()
    if tag not in _KEY_HANDLES:
        reader.fail(f"a public key's type {tag} is not known")
    prefix, length = _KEY_HANDLES[tag]
    public_key = prefix + base58_encode(reader.fixed(length))
    if not reader.remaining:
        return TrieKey(TrieKeyKind.ACCESS_KEY, account_id, public_key)
    return TrieKey(TrieKeyKind.GAS_KEY_NONCE, account_id, public_key, reader.u16())


def _parse_global_contract(kind: TrieKeyKind, reader: BorshReader) -> TrieKey:
    tag = reader.u8()
    if tag == 0:
        return TrieKey(kind, code_hash=CryptoHash(reader.fixed(32)))
    if tag != 1:
        reader.fail(f"a global contract's identifier {tag} is not known")
    return TrieKey(kind, _account_id(reader, reader.byte_vec(ACCOUNT_ID_BYTES_MAX)))


def _account_id_before(key: bytes, separator: bytes, reader: BorshReader) -> str:
    """Take the account id between a key's first byte and the separator, which no account id contains, and the separator."""
    end = key.find(separator, 1)
    if end < 0:
        reader.fail("no account id with its separator is there")
    account_id = _account_id(reader, reader.fixed(end - 1))
    reader.u8()
    return account_id


def _account_id(reader: BorshReader, data: bytes) -> str:
    if not 0 < len(data) <= ACCOUNT_ID_BYTES_MAX or not data.isascii():
        reader.fail(f"an account id is 1 to {ACCOUNT_ID_BYTES_MAX} ASCII characters")
    return data.decode("ascii")
