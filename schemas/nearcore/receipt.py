"""Receipts: what one moves and what it is for, or where it ends.

Borsh: predecessor and receiver (strings), receipt id, then ``u8`` kind: 0 actions, 1 data, 2 and 3 the same for a yielded promise,
4 a global contract's way to the other shards, 5 and 6 actions with an account that refunds go to. As with the versions of a chunk
header, the length of a kind that is not known can't be told: what follows it can't be read.

In the state a receipt is the value of a record of four kinds. Postponed receipts and those of yielded promises are as above; delayed and
buffered ones are, or since the protocol meters congestion stand in another form::

    u8 255 | u8 255 | u8 version, 0 or 1 | receipt | u64 congestion gas | u64 congestion size

For a time there was a second version of a receipt: ``u8 1``, the receipt, ``u64`` priority. The first two bytes tell which it is, since the
length of an account id is 1 to 64.

Source: nearcore core/primitives/src/{receipt,transaction}.rs, core/primitives/src/action/{mod,delegate}.rs,
core/primitives-core/src/{account,deterministic_account_id,global_contract}.rs, core/crypto/src/signature.rs; what counts as deposit and as
attached gas: runtime/runtime/src/config.rs, total_deposit and total_prepaid_gas. No signature is checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from schemas.errors import MalformedValueError
from schemas.ids import CryptoHash
from schemas.nearcore.account import ACCOUNT_ID_BYTES_MAX
from schemas.nearcore.borsh import BorshReader

ACTIONS_MAX: Final = 1 << 12
"""Most actions of a receipt; the protocol's own limit is 100."""

RECEIPT_BYTES_MIN: Final = 4 + 4 + 32 + 1 + 32 + 1
"""Of the smallest receipt: data that is not there, between accounts of no name."""

SYSTEM_ACCOUNT_ID: Final = "system"
"""Predecessor of refunds, for whose gas nobody pays."""

# ed25519, secp256k1, ML-DSA-65
_PUBLIC_KEY_BYTES: Final = (32, 64, 1952)
_SIGNATURE_BYTES: Final = (64, 65, 3309)
_HASH_BYTES: Final = 32
_U64_BYTES: Final = 8
_U128_BYTES: Final = 16
_DATA_RECEIVER_BYTES_MIN: Final = _HASH_BYTES + 4
_STORED_TAG: Final = b"\xff\xff"
_STORED_VERSIONS: Final = 2


class ReceiptKind(StrEnum):
    """What a receipt is; in the order of nearcore's enum, which is the borsh tag, and what later versions of nearcore may add."""

    ACTION = "action"
    DATA = "data"
    PROMISE_YIELD = "promise_yield"
    PROMISE_RESUME = "promise_resume"
    GLOBAL_CONTRACT_DISTRIBUTION = "global_contract_distribution"
    ACTION_V2 = "action_v2"
    PROMISE_YIELD_V2 = "promise_yield_v2"
    LATER = "later"
    """Of a kind, or with a part, that is not known here."""


_RECEIPT_KINDS: Final = tuple(kind for kind in ReceiptKind if kind is not ReceiptKind.LATER)


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt without the arguments of its actions. What only receipts with actions have is None for the others."""

    kind: ReceiptKind
    predecessor_id: str | None
    """None only where the whole form is a later one."""
    receiver_id: str | None
    receipt_id: CryptoHash | None
    data_id: CryptoHash | None = None
    """Of receipts that carry data."""
    signer_id: str | None = None
    """Who signed the transaction that it comes of."""
    refund_to: str | None = None
    """Who gets the deposit back, where it is not the predecessor."""
    gas_price: int | None = None
    """YoctoNEAR for a unit of gas, at which its gas was bought."""
    num_actions: int | None = None
    """Delegated ones are not counted."""
    deposit: int | None = None
    """YoctoNEAR that its actions bring, delegated ones too."""
    attached_gas: int | None = None
    """Gas that is attached to its function calls, delegated ones too; without the fees of the actions themselves."""
    later: str | None = None
    """Of kind ``LATER``: what is not known."""

    @property
    def attached_gas_cost(self) -> int | None:
        """YoctoNEAR that was paid for the attached gas."""
        if self.attached_gas is None or self.gas_price is None:
            return None
        return 0 if self.predecessor_id == SYSTEM_ACCOUNT_ID else self.attached_gas * self.gas_price


class _LaterFormError(Exception):
    """A kind, action, key or version that is not known: where it ends can't be told. Never leaves this module."""


@dataclass(slots=True)
class _Content:
    """What is behind a receipt's head, as it is read."""

    kind: ReceiptKind = ReceiptKind.LATER
    data_id: memoryview | None = None
    signer_id: memoryview | None = None
    refund_to: memoryview | None = None
    gas_price: int | None = None
    num_actions: int | None = None
    deposit: int = 0
    attached_gas: int = 0


def skip_receipt(reader: BorshReader) -> None:
    """Skip a Receipt.

    Raises:
        IntegrityError: the reader's class, on malformed bytes, and on a kind of receipt, action or key that is not known.
    """
    _read_head(reader)
    try:
        _read_content(reader, _Content())
    except _LaterFormError as error:
        reader.fail(str(error))


def decode_receipt(value: bytes | memoryview, *, may_be_stored: bool) -> Receipt:
    """Decode a receipt that is a record's value.

    Args:
        value: the whole value of the record.
        may_be_stored: whether the form with the figures of congestion may stand here: in delayed and buffered receipts.
    Returns:
        The receipt; of kind ``LATER`` where some of it is of a kind that is not known here, with what stands before that.
    Raises:
        MalformedValueError: no receipt, or bytes follow the end.
    """
    reader = BorshReader(value, "", MalformedValueError)
    first = bytes(value[:2])
    tail_bytes = 0
    if may_be_stored and first == _STORED_TAG:
        reader.fixed_view(len(_STORED_TAG))
        version = reader.u8()
        if version >= _STORED_VERSIONS:
            return Receipt(ReceiptKind.LATER, None, None, None, later=f"{version} is no known version of a stored receipt")
        tail_bytes = 2 * _U64_BYTES
    elif len(first) == 2 and first[0] == 1 and first[1] != 0:
        reader.u8()
        tail_bytes = _U64_BYTES
    predecessor_id, receiver_id, receipt_id = _read_head(reader)
    head = (_account_id(reader, predecessor_id), _account_id(reader, receiver_id), CryptoHash(bytes(receipt_id)))
    content = _Content()
    try:
        _read_content(reader, content)
    except _LaterFormError as error:
        return Receipt(ReceiptKind.LATER, *head, later=str(error))
    reader.fixed_view(tail_bytes)
    reader.end()
    has_actions = content.num_actions is not None
    return Receipt(
        content.kind,
        *head,
        data_id=None if content.data_id is None else CryptoHash(bytes(content.data_id)),
        signer_id=None if content.signer_id is None else _account_id(reader, content.signer_id),
        refund_to=None if content.refund_to is None else _account_id(reader, content.refund_to),
        gas_price=content.gas_price,
        num_actions=content.num_actions,
        deposit=content.deposit if has_actions else None,
        attached_gas=content.attached_gas if has_actions else None,
    )


def _account_id(reader: BorshReader, data: memoryview) -> str:
    if not 0 < len(data) <= ACCOUNT_ID_BYTES_MAX or not bytes(data).isascii():
        reader.fail(f"an account id is 1 to {ACCOUNT_ID_BYTES_MAX} ASCII characters")
    return bytes(data).decode("ascii")


def _read_head(reader: BorshReader) -> tuple[memoryview, memoryview, memoryview]:
    """Take predecessor, receiver and receipt id."""
    return reader.byte_vec_view(), reader.byte_vec_view(), reader.fixed_view(_HASH_BYTES)


def _read_content(reader: BorshReader, content: _Content) -> None:
    tag = reader.u8()
    if tag >= len(_RECEIPT_KINDS):
        raise _LaterFormError(f"{tag} is no known kind of receipt")
    content.kind = _RECEIPT_KINDS[tag]
    match content.kind:
        case ReceiptKind.DATA | ReceiptKind.PROMISE_RESUME:
            content.data_id = reader.fixed_view(_HASH_BYTES)
            if reader.flag():
                reader.byte_vec_view()
        case ReceiptKind.GLOBAL_CONTRACT_DISTRIBUTION:
            _skip_global_contract_distribution(reader)
        case ReceiptKind.ACTION | ReceiptKind.PROMISE_YIELD:
            _read_action_receipt(reader, content, has_refund_to=False)
        case ReceiptKind.ACTION_V2 | ReceiptKind.PROMISE_YIELD_V2:
            _read_action_receipt(reader, content, has_refund_to=True)


def _read_action_receipt(reader: BorshReader, content: _Content, *, has_refund_to: bool) -> None:
    content.signer_id = reader.byte_vec_view()
    if has_refund_to and reader.flag():
        content.refund_to = reader.byte_vec_view()
    _skip_keyed(reader, _PUBLIC_KEY_BYTES)
    content.gas_price = reader.u128()
    for _ in range(reader.count(_DATA_RECEIVER_BYTES_MIN)):
        reader.fixed_view(_HASH_BYTES)
        reader.byte_vec_view()
    # ids of the data that the receipt waits for
    reader.fixed_view(_HASH_BYTES * reader.count(_HASH_BYTES))
    content.num_actions = _read_actions(reader, content, is_delegated=False)


def _read_actions(reader: BorshReader, content: _Content, *, is_delegated: bool) -> int:
    count = reader.count(1, ACTIONS_MAX)
    for _ in range(count):
        _read_action(reader, content, is_delegated=is_delegated)
    return count


def _read_action(reader: BorshReader, content: _Content, *, is_delegated: bool) -> None:
    match reader.u8():
        case 0:  # create account
            pass
        case 1 | 7:  # deploy contract: its code; delete account: the beneficiary
            reader.byte_vec_view()
        case 2:  # function call: method, arguments, gas, deposit
            reader.byte_vec_view()
            reader.byte_vec_view()
            content.attached_gas += reader.u64()
            content.deposit += reader.u128()
        case 3:  # transfer
            content.deposit += reader.u128()
        case 4:  # stake: of what the account has, so it brings nothing
            reader.fixed_view(_U128_BYTES)
            _skip_keyed(reader, _PUBLIC_KEY_BYTES)
        case 5:  # add key
            _skip_keyed(reader, _PUBLIC_KEY_BYTES)
            _skip_access_key(reader)
        case 6:  # delete key
            _skip_keyed(reader, _PUBLIC_KEY_BYTES)
        case 8 if not is_delegated:
            _read_delegated(reader, content, has_nonce_tag=False)
        case 9:  # deploy global contract: code, and whether it is named by its hash or by the account
            reader.byte_vec_view()
            reader.flag()
        case 10:  # use global contract
            _skip_global_contract_id(reader)
        case 11:  # deterministic state init, of which there is one version
            _expect_tag(reader, 0, "state init")
            _skip_global_contract_id(reader)
            for _ in range(reader.count(8)):
                reader.byte_vec_view()
                reader.byte_vec_view()
            content.deposit += reader.u128()
        case 12:  # transfer to a gas key
            _skip_keyed(reader, _PUBLIC_KEY_BYTES)
            content.deposit += reader.u128()
        case 13:  # withdraw from a gas key: from one balance of the account to the other
            _skip_keyed(reader, _PUBLIC_KEY_BYTES)
            reader.fixed_view(_U128_BYTES)
        case 14 if not is_delegated:
            _expect_tag(reader, 0, "delegated actions")
            _read_delegated(reader, content, has_nonce_tag=True)
        case 15:  # universal state init
            reader.byte_vec_view()
            content.deposit += reader.u128()
        case 8 | 14:
            reader.fail("delegated actions stand in delegated actions")
        case kind:
            raise _LaterFormError(f"{kind} is no known kind of action")


def _read_delegated(reader: BorshReader, content: _Content, *, has_nonce_tag: bool) -> None:
    # sender, receiver
    reader.byte_vec_view()
    reader.byte_vec_view()
    _read_actions(reader, content, is_delegated=True)
    # A gas key's nonce has an index.
    reader.fixed_view(_U64_BYTES + (2 if has_nonce_tag and reader.flag() else 0))
    # last height
    reader.fixed_view(_U64_BYTES)
    _skip_keyed(reader, _PUBLIC_KEY_BYTES)
    _skip_keyed(reader, _SIGNATURE_BYTES)


def _skip_access_key(reader: BorshReader) -> None:
    # nonce
    reader.fixed_view(_U64_BYTES)
    permission = reader.u8()
    if permission > 3:
        raise _LaterFormError(f"{permission} is no known kind of permission")
    if permission >= 2:
        # a gas key's balance and number of nonces
        reader.fixed_view(_U128_BYTES + 2)
    if permission in (0, 2):
        # allowance, receiver, methods
        if reader.flag():
            reader.fixed_view(_U128_BYTES)
        reader.byte_vec_view()
        for _ in range(reader.count(4)):
            reader.byte_vec_view()


def _skip_global_contract_distribution(reader: BorshReader) -> None:
    version = reader.u8() + 1
    if version > 2:
        raise _LaterFormError(f"V{version} is no known version of a global contract's distribution")
    _skip_global_contract_id(reader)
    # target shard, shards that have it, code
    reader.fixed_view(_U64_BYTES)
    reader.fixed_view(_U64_BYTES * reader.count(_U64_BYTES))
    reader.byte_vec_view()
    if version >= 2:
        # nonce
        reader.fixed_view(_U64_BYTES)


def _skip_global_contract_id(reader: BorshReader) -> None:
    if reader.flag():
        reader.byte_vec_view()
    else:
        reader.fixed_view(_HASH_BYTES)


def _skip_keyed(reader: BorshReader, byte_counts: tuple[int, ...]) -> None:
    key_type = reader.u8()
    if key_type >= len(byte_counts):
        raise _LaterFormError(f"{key_type} is no known type of key")
    reader.fixed_view(byte_counts[key_type])


def _expect_tag(reader: BorshReader, expected: int, name: str) -> None:
    tag = reader.u8()
    if tag != expected:
        raise _LaterFormError(f"{tag} is no known version of {name}")
