"""Access keys in nearcore's encoding."""

from __future__ import annotations

import pytest

from schemas.errors import MalformedValueError
from schemas.nearcore.access_key import AccessKey, FunctionCallLimits, GasKeyInfo, PermissionKind, decode_access_key

NONCE = "0700000000000000"
NO_ALLOWANCE = "00" + "04000000" + b"c.io".hex() + "00000000"
LIMITS = "01" + "09" + "00" * 15 + "04000000" + b"c.io".hex() + "02000000" + "01000000" + b"a".hex() + "02000000" + b"bc".hex()
GAS_KEY = "05" + "00" * 15 + "0300"

ENCODINGS = [
    (AccessKey(7, PermissionKind.FULL_ACCESS), NONCE + "01"),
    (AccessKey(7, PermissionKind.FUNCTION_CALL, FunctionCallLimits(None, "c.io", ())), NONCE + "00" + NO_ALLOWANCE),
    (AccessKey(7, PermissionKind.FUNCTION_CALL, FunctionCallLimits(9, "c.io", ("a", "bc"))), NONCE + "00" + LIMITS),
    (
        AccessKey(7, PermissionKind.GAS_KEY_FUNCTION_CALL, FunctionCallLimits(9, "c.io", ("a", "bc")), GasKeyInfo(5, 3)),
        NONCE + "02" + GAS_KEY + LIMITS,
    ),
    (AccessKey(7, PermissionKind.GAS_KEY_FULL_ACCESS, gas_key=GasKeyInfo(5, 3)), NONCE + "03" + GAS_KEY),
]


@pytest.mark.parametrize(("access_key", "encoded"), ENCODINGS)
def test_an_access_key_decodes_and_encodes(access_key: AccessKey, encoded: str) -> None:
    """Both ways, each permission; the tags are the places in nearcore's enum."""
    assert decode_access_key(bytes.fromhex(encoded)) == access_key
    assert access_key.to_bytes().hex() == encoded


@pytest.mark.parametrize("encoded", [encoded for _, encoded in ENCODINGS])
def test_a_byte_less_or_more_is_refused(encoded: str) -> None:
    """nearcore takes a whole value or nothing."""
    for damaged in (encoded[:-2], encoded + "00"):
        with pytest.raises(MalformedValueError):
            decode_access_key(bytes.fromhex(damaged), "here")


@pytest.mark.parametrize(
    "tail", ["04", "00" + "02", "00" + "00" + "02000000" + "c328" + "00000000", "00" + "00" + "00000000" + "ffffffff", "03" + "00" * 17]
)
def test_malformed_permissions_are_refused(tail: str) -> None:
    """An unknown tag, a bad option, text that is not UTF-8, a count that can't be, half a gas key."""
    with pytest.raises(MalformedValueError):
        decode_access_key(bytes.fromhex(NONCE + tail))
