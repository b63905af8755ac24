"""Accounts, against bytes that nearcore's own tests expect."""

from __future__ import annotations

import hashlib

import pytest

from schemas.errors import MalformedValueError
from schemas.ids import CryptoHash
from schemas.nearcore.account import NO_CONTRACT, Account, AccountContract, AccountVersion, ContractKind, decode_account

CODE_HASH = CryptoHash(hashlib.sha256(bytes([42])).digest())
LOCAL = AccountContract(ContractKind.LOCAL, CODE_HASH)
GLOBAL = AccountContract(ContractKind.GLOBAL, CODE_HASH)
BY_ACCOUNT = AccountContract(ContractKind.GLOBAL_BY_ACCOUNT, account_id="code.near")
V2_HEAD = "ff" * 16 + "00" + "64" + "00" * 15 + "c8" + "00" * 15 + "2c01000000000000"

# Source: nearcore core/primitives-core/src/account.rs, the hex that its test of the three encodings expects.
ENCODINGS = [
    (
        Account(AccountVersion.V1, 100, 200, 300, LOCAL),
        "64000000000000000000000000000000c8000000000000000000000000000000684888c0ebb17f374298b65ee2807526c066094c701bcc7ebbe1c1095f494fc1"
        "2c01000000000000",
    ),
    (
        Account(AccountVersion.V2, 100, 200, 300, GLOBAL),
        "ffffffffffffffffffffffffffffffff0064000000000000000000000000000000c80000000000000000000000000000002c01000000000000"
        "02684888c0ebb17f374298b65ee2807526c066094c701bcc7ebbe1c1095f494fc1",
    ),
    (
        Account(AccountVersion.UNINITIALIZED, 100, 0, 300, bootstrap_nonce=7_000_000),
        "ffffffffffffffffffffffffffffffff01640000000000000000000000000000002c01000000000000c0cf6a0000000000",
    ),
    (Account(AccountVersion.V2, 100, 200, 300, BY_ACCOUNT), V2_HEAD + "03" + "09000000" + b"code.near".hex()),
    (Account(AccountVersion.V2, 100, 200, 300, NO_CONTRACT), V2_HEAD + "00"),
]


@pytest.mark.parametrize(("account", "encoded"), ENCODINGS)
def test_an_account_decodes_and_encodes_as_in_nearcore(account: Account, encoded: str) -> None:
    """Both ways, each encoding."""
    assert decode_account(bytes.fromhex(encoded)) == account
    assert account.to_bytes().hex() == encoded


def test_an_account_without_a_contract_has_the_digest_that_nearcore_expects() -> None:
    """The vector of nearcore's test_account_serialization."""
    encoded = Account(AccountVersion.V1, 1_000_000, 1_000_000, 100).to_bytes()
    assert str(CryptoHash(hashlib.sha256(encoded).digest())) == "EVk5UaxBe8LQ8r8iD5EAxVBs6TJcMDKqyH7PBuho6bBJ"


@pytest.mark.parametrize("encoded", [encoded for _, encoded in ENCODINGS])
def test_a_byte_less_or_more_is_refused(encoded: str) -> None:
    """nearcore takes a whole value or nothing."""
    for damaged in (encoded[:-2], encoded + "00"):
        with pytest.raises(MalformedValueError):
            decode_account(bytes.fromhex(damaged), "here")


@pytest.mark.parametrize(
    "tail", ["02" + "00" * 32, "00" + "00" * 40 + "04", "00" + "00" * 40 + "03ffffffff", "00" + "00" * 40 + "0302000000c3a9"]
)
def test_unknown_tags_and_bad_account_ids_are_refused(tail: str) -> None:
    """A version or contract that a later nearcore may add is not guessed at."""
    with pytest.raises(MalformedValueError):
        decode_account(bytes.fromhex("ff" * 16 + tail))
