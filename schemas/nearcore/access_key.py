"""Access keys as the state holds them: the value of a record of kind access key::

    u64 nonce | permission

    permission   0 function call      limits
                 1 full access
                 2 gas key, function call   u128 balance | u16 number of nonces | limits
                 3 gas key, full access     u128 balance | u16 number of nonces
    limits       option of u128 allowance | string receiver | vec of string method names

The nonces of a gas key are records of their own, under the key's own trie key and an index (`schemas.nearcore.trie_key`).

Source: nearcore core/primitives-core/src/account.rs (AccessKey, AccessKeyPermission, FunctionCallPermission, GasKeyInfo). Nothing here
knows of tries or files.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from schemas.errors import MalformedValueError
from schemas.nearcore.borsh import BorshReader, BorshWriter


class PermissionKind(StrEnum):
    """What a key may sign; in the order of nearcore's enum, which is the borsh tag."""

    FUNCTION_CALL = "function_call"
    FULL_ACCESS = "full_access"
    GAS_KEY_FUNCTION_CALL = "gas_key_function_call"
    GAS_KEY_FULL_ACCESS = "gas_key_full_access"

    @property
    def is_gas_key(self) -> bool:
        """Whether the key pays gas from a balance of its own."""
        return self in (PermissionKind.GAS_KEY_FUNCTION_CALL, PermissionKind.GAS_KEY_FULL_ACCESS)

    @property
    def is_limited(self) -> bool:
        """Whether the key may call functions of one receiver only."""
        return self in (PermissionKind.FUNCTION_CALL, PermissionKind.GAS_KEY_FUNCTION_CALL)


PERMISSION_KINDS: Final = tuple(PermissionKind)


@dataclass(frozen=True, slots=True)
class FunctionCallLimits:
    """What a key that only calls functions may do."""

    allowance: int | None
    """YoctoNEAR that the key may still spend on gas; None is unlimited."""
    receiver_id: str
    """Whose functions; in old records perhaps no account id."""
    method_names: tuple[str, ...]
    """Empty for all."""


@dataclass(frozen=True, slots=True)
class GasKeyInfo:
    """What a gas key has beside its permission."""

    balance: int
    """YoctoNEAR."""
    num_nonces: int


@dataclass(frozen=True, slots=True)
class AccessKey:
    """An access key without its public key, which is in the trie key."""

    nonce: int
    permission: PermissionKind
    function_call: FunctionCallLimits | None = None
    """Of the two limited kinds."""
    gas_key: GasKeyInfo | None = None
    """Of the two kinds of gas key."""

    def to_bytes(self) -> bytes:
        """Return the key's value in the state."""
        writer = BorshWriter().u64(self.nonce).u8(PERMISSION_KINDS.index(self.permission))
        assert (self.gas_key is not None) == self.permission.is_gas_key
        assert (self.function_call is not None) == self.permission.is_limited
        if self.gas_key is not None:
            writer.u128(self.gas_key.balance).u16(self.gas_key.num_nonces)
        if self.function_call is not None:
            writer.option(self.function_call.allowance, writer.u128).byte_vec(self.function_call.receiver_id.encode())
            writer.u32(len(self.function_call.method_names))
            for name in self.function_call.method_names:
                writer.byte_vec(name.encode())
        return writer.to_bytes()


def decode_access_key(value: bytes | memoryview, where: str = "") -> AccessKey:
    """Decode an access key's value.

    Args:
        value: the whole value of the record.
        where: for errors, the record's place.
    Raises:
        MalformedValueError: not an access key, text that is not UTF-8, or bytes follow the end.
    """
    reader = BorshReader(value, where, MalformedValueError)
    nonce, tag = reader.u64(), reader.u8()
    if tag >= len(PERMISSION_KINDS):
        reader.fail(f"a permission's tag {tag} is not known")
    permission = PERMISSION_KINDS[tag]
    gas_key = GasKeyInfo(reader.u128(), reader.u16()) if permission.is_gas_key else None
    function_call = None
    if permission.is_limited:
        allowance = reader.option(reader.u128)
        function_call = FunctionCallLimits(allowance, _text(reader), tuple(reader.vec(lambda: _text(reader), 4)))
    reader.end()
    return AccessKey(nonce, permission, function_call, gas_key)


def _text(reader: BorshReader) -> str:
    try:
        return reader.byte_vec().decode()
    except UnicodeDecodeError:
        reader.fail("a text is not UTF-8")
