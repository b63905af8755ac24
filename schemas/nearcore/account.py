"""Accounts as the state holds them: the value of a record of kind account.

Three encodings share one place. The first 16 bytes of each are a u128: of an account of version 1 its amount; of the others
2**128 - 1, which no balance can be, and a tag follows::

    v1              u128 amount | u128 locked | 32 bytes code hash, zeros for none | u64 storage usage
    v2              u128 max | u8 0 | u128 amount | u128 locked | u64 storage usage | contract
    uninitialized   u128 max | u8 1 | u128 amount | u64 storage usage | u64 bootstrap nonce

Source: nearcore core/primitives-core/src/account.rs (Account's borsh, AccountContract, BorshVersionedAccount). Nothing here knows of
tries or files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from schemas.errors import MalformedValueError
from schemas.ids import ZERO_HASH, CryptoHash
from schemas.nearcore.borsh import BorshReader, BorshWriter

ACCOUNT_ID_BYTES_MAX: Final = 64
"""Longest account id (nearcore's rule)."""

ACCOUNT_ID_BYTES_MIN: Final = 2
"""Shortest account id (nearcore's rule)."""

_ACCOUNT_ID: Final = re.compile(r"[a-z0-9]+(?:[-_.][a-z0-9]+)*")

ACCOUNT_SENTINEL: Final = 2**128 - 1
"""First u128 of an account that is not of version 1: those have 72 bytes and no tag."""


def is_account_id(text: str) -> bool:
    """Return whether a text is an account id: 2 to 64 small letters and digits, with single ``-``, ``_`` or ``.`` between them.

    Source: near-account-id, validation.rs.
    """
    return ACCOUNT_ID_BYTES_MIN <= len(text) <= ACCOUNT_ID_BYTES_MAX and _ACCOUNT_ID.fullmatch(text) is not None


class AccountVersion(StrEnum):
    """Which encoding an account has."""

    V1 = "v1"
    V2 = "v2"
    UNINITIALIZED = "uninitialized"


class ContractKind(StrEnum):
    """Where an account's contract code is; in the order of nearcore's enum, which is the borsh tag."""

    NONE = "none"
    LOCAL = "local"
    GLOBAL = "global"
    GLOBAL_BY_ACCOUNT = "global_by_account"


_CONTRACT_KINDS: Final = tuple(ContractKind)


@dataclass(frozen=True, slots=True)
class AccountContract:
    """The contract of an account: its own, or a global one by hash or by the account that deployed it."""

    kind: ContractKind
    code_hash: CryptoHash | None = None
    """Of local and global contracts."""
    account_id: str | None = None
    """Of a global contract by account."""

    def to_bytes(self) -> bytes:
        """Return AccountContract in borsh."""
        writer = BorshWriter().u8(_CONTRACT_KINDS.index(self.kind))
        if self.code_hash is not None:
            writer.fixed(self.code_hash)
        if self.account_id is not None:
            writer.byte_vec(self.account_id.encode())
        return writer.to_bytes()


NO_CONTRACT: Final = AccountContract(ContractKind.NONE)


def local_contract(code_hash: CryptoHash) -> AccountContract:
    """Return a contract of an account's own; zeros mean that it has none."""
    return NO_CONTRACT if code_hash == ZERO_HASH else AccountContract(ContractKind.LOCAL, code_hash)


@dataclass(frozen=True, slots=True)
class Account:
    """An account; amounts in yoctoNEAR."""

    version: AccountVersion
    amount: int
    """What is not locked."""
    locked: int
    """At stake; 0 where uninitialized."""
    storage_usage: int
    """Bytes that the account is charged for."""
    contract: AccountContract = NO_CONTRACT
    bootstrap_nonce: int | None = None
    """Of an uninitialized account only."""

    def to_bytes(self) -> bytes:
        """Return the account's value in the state."""
        writer = BorshWriter()
        if self.version is AccountVersion.V1:
            assert self.amount != ACCOUNT_SENTINEL and self.contract.kind in (ContractKind.NONE, ContractKind.LOCAL)
            code_hash = self.contract.code_hash or ZERO_HASH
            return writer.u128(self.amount).u128(self.locked).fixed(code_hash).u64(self.storage_usage).to_bytes()
        writer.u128(ACCOUNT_SENTINEL)
        if self.version is AccountVersion.V2:
            writer.u8(0).u128(self.amount).u128(self.locked).u64(self.storage_usage)
            return writer.fixed(self.contract.to_bytes()).to_bytes()
        assert self.bootstrap_nonce is not None and not self.locked and self.contract == NO_CONTRACT
        return writer.u8(1).u128(self.amount).u64(self.storage_usage).u64(self.bootstrap_nonce).to_bytes()


def decode_account(value: bytes | memoryview, where: str = "") -> Account:
    """Decode an account's value.

    Args:
        value: the whole value of the record.
        where: for errors, the record's place.
    Raises:
        MalformedValueError: not one of the three encodings, or bytes follow the end.
    """
    reader = BorshReader(value, where, MalformedValueError)
    first = reader.u128()
    if first != ACCOUNT_SENTINEL:
        locked, code_hash = reader.u128(), CryptoHash(reader.fixed(32))
        account = Account(AccountVersion.V1, first, locked, reader.u64(), local_contract(code_hash))
    else:
        account = _read_tagged(reader)
    reader.end()
    return account


def _read_tagged(reader: BorshReader) -> Account:
    tag = reader.u8()
    if tag == 0:
        amount, locked, storage_usage = reader.u128(), reader.u128(), reader.u64()
        return Account(AccountVersion.V2, amount, locked, storage_usage, _read_contract(reader))
    if tag != 1:
        reader.fail(f"an account's version tag {tag} is not known")
    amount, storage_usage = reader.u128(), reader.u64()
    return Account(AccountVersion.UNINITIALIZED, amount, 0, storage_usage, bootstrap_nonce=reader.u64())


def _read_contract(reader: BorshReader) -> AccountContract:
    tag = reader.u8()
    if tag >= len(_CONTRACT_KINDS):
        reader.fail(f"a contract's tag {tag} is not known")
    kind = _CONTRACT_KINDS[tag]
    if kind is ContractKind.NONE:
        return NO_CONTRACT
    if kind is ContractKind.GLOBAL_BY_ACCOUNT:
        data = reader.byte_vec(ACCOUNT_ID_BYTES_MAX)
        if not data or not data.isascii():
            reader.fail("an account id is not ASCII, or is empty")
        return AccountContract(kind, account_id=data.decode("ascii"))
    return AccountContract(kind, CryptoHash(reader.fixed(32)))
