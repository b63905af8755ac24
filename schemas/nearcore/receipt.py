"""Receipts, skipped: nothing of one is used, but what follows it begins where it ends.

Borsh: predecessor and receiver (strings), receipt id, then ``u8`` kind: 0 actions, 1 data, 2 and 3 the same for a yielded promise,
4 a global contract's way to the other shards, 5 and 6 actions with an account that refunds go to. As with the versions of a chunk
header, a kind that is not known is an error: its length can't be told.

Source: nearcore core/primitives/src/{receipt,transaction}.rs, core/primitives/src/action/{mod,delegate}.rs,
core/primitives-core/src/{account,deterministic_account_id,global_contract}.rs, core/crypto/src/signature.rs. No signature is checked.
"""

from __future__ import annotations

from typing import Final

from schemas.nearcore.borsh import BorshReader

ACTIONS_MAX: Final = 1 << 12
"""Most actions of a receipt; the protocol's own limit is 100."""

RECEIPT_BYTES_MIN: Final = 4 + 4 + 32 + 1 + 32 + 1
"""Of the smallest receipt: data that is not there, between accounts of no name."""

# ed25519, secp256k1, ML-DSA-65
_PUBLIC_KEY_BYTES: Final = (32, 64, 1952)
_SIGNATURE_BYTES: Final = (64, 65, 3309)
_HASH_BYTES: Final = 32
_U64_BYTES: Final = 8
_U128_BYTES: Final = 16
_DATA_RECEIVER_BYTES_MIN: Final = _HASH_BYTES + 4


def skip_receipt(reader: BorshReader) -> None:
    """Skip a Receipt.

    Raises:
        IntegrityError: the reader's class, on malformed bytes, and on a kind of receipt, action or key that is not known.
    """
    # predecessor, receiver, receipt id
    reader.byte_vec_view()
    reader.byte_vec_view()
    reader.fixed_view(_HASH_BYTES)
    match reader.u8():
        case 0 | 2:
            _skip_action_receipt(reader, has_refund_to=False)
        case 1 | 3:
            reader.fixed_view(_HASH_BYTES)
            if reader.flag():
                reader.byte_vec_view()
        case 4:
            _skip_global_contract_distribution(reader)
        case 5 | 6:
            _skip_action_receipt(reader, has_refund_to=True)
        case kind:
            reader.fail(f"{kind} is no known kind of receipt")


def _skip_action_receipt(reader: BorshReader, *, has_refund_to: bool) -> None:
    # signer
    reader.byte_vec_view()
    if has_refund_to and reader.flag():
        reader.byte_vec_view()
    _skip_keyed(reader, _PUBLIC_KEY_BYTES)
    # gas price
    reader.fixed_view(_U128_BYTES)
    for _ in range(reader.count(_DATA_RECEIVER_BYTES_MIN)):
        reader.fixed_view(_HASH_BYTES)
        reader.byte_vec_view()
    # ids of the data that the receipt waits for
    reader.fixed_view(_HASH_BYTES * reader.count(_HASH_BYTES))
    _skip_actions(reader, is_delegated=False)


def _skip_actions(reader: BorshReader, *, is_delegated: bool) -> None:
    for _ in range(reader.count(1, ACTIONS_MAX)):
        _skip_action(reader, is_delegated=is_delegated)


def _skip_action(reader: BorshReader, *, is_delegated: bool) -> None:
    match reader.u8():
        case 0:  # create account
            pass
        case 1 | 7:  # deploy contract: its code; delete account: the beneficiary
            reader.byte_vec_view()
        case 2:  # function call: method, arguments, gas, deposit
            reader.byte_vec_view()
            reader.byte_vec_view()
            reader.fixed_view(_U64_BYTES + _U128_BYTES)
        case 3:  # transfer
            reader.fixed_view(_U128_BYTES)
        case 4:  # stake
            reader.fixed_view(_U128_BYTES)
            _skip_keyed(reader, _PUBLIC_KEY_BYTES)
        case 5:  # add key
            _skip_keyed(reader, _PUBLIC_KEY_BYTES)
            _skip_access_key(reader)
        case 6:  # delete key
            _skip_keyed(reader, _PUBLIC_KEY_BYTES)
        case 8 if not is_delegated:
            _skip_delegated(reader, has_nonce_tag=False)
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
            reader.fixed_view(_U128_BYTES)
        case 12 | 13:  # transfer to a gas key, withdraw from it
            _skip_keyed(reader, _PUBLIC_KEY_BYTES)
            reader.fixed_view(_U128_BYTES)
        case 14 if not is_delegated:
            _expect_tag(reader, 0, "delegated actions")
            _skip_delegated(reader, has_nonce_tag=True)
        case 15:  # universal state init
            reader.byte_vec_view()
            reader.fixed_view(_U128_BYTES)
        case kind:
            reader.fail(f"{kind} is no known kind of action" if kind not in (8, 14) else "delegated actions stand in delegated actions")


def _skip_delegated(reader: BorshReader, *, has_nonce_tag: bool) -> None:
    # sender, receiver
    reader.byte_vec_view()
    reader.byte_vec_view()
    _skip_actions(reader, is_delegated=True)
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
        reader.fail(f"{permission} is no known kind of permission")
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
        reader.fail(f"V{version} is no known version of a global contract's distribution")
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
        reader.fail(f"{key_type} is no known type of key")
    reader.fixed_view(byte_counts[key_type])


def _expect_tag(reader: BorshReader, expected: int, name: str) -> None:
    tag = reader.u8()
    if tag != expected:
        reader.fail(f"{tag} is no known version of {name}")
