"""From options to trie keys."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.proving.wanted_record import WantedRecord, parse_public_key, wanted_record
from schemas.errors import InvalidInputError
from schemas.ids import base58_encode

KEY = f"ed25519:{base58_encode(bytes(range(32)))}"
SECP_KEY = f"secp256k1:{base58_encode(bytes(range(1, 65)))}"
HASHED_KEY = f"ml-dsa-65-hash:{base58_encode(bytes(range(32)))}"


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({}, b"\x00alice.near"),
        ({"contract_code": True}, b"\x01alice.near"),
        ({"access_key": KEY}, b"\x02alice.near\x02\x00" + bytes(range(32))),
        ({"access_key": SECP_KEY}, b"\x02alice.near\x02\x01" + bytes(range(1, 65))),
        ({"access_key": HASHED_KEY}, b"\x02alice.near\x02\x03" + bytes(range(32))),
        ({"contract_key": "STATE"}, b"\x09alice.near,STATE"),
        ({"contract_key": "hex:00ff"}, b"\x09alice.near,\x00\xff"),
        ({"contract_key": "hex:0x00FF"}, b"\x09alice.near,\x00\xff"),
        ({"contract_key": "base64:AP8="}, b"\x09alice.near,\x00\xff"),
        ({"contract_key": "a:b"}, b"\x09alice.near,a:b"),
        ({"contract_key": ""}, b"\x09alice.near,"),
        ({"trie_key": "hex:07"}, b"\x07"),
    ],
)
def test_options_name_a_trie_key(options: dict[str, Any], key: bytes) -> None:
    """Each option gives the key that nearcore uses."""
    assert wanted_record("alice.near", **options) == WantedRecord("alice.near", key)


def test_a_prefix_is_a_prefix() -> None:
    """A contract prefix may be empty, and stays inside the account."""
    assert wanted_record("alice.near", contract_prefix="") == WantedRecord("alice.near", b"\x09alice.near,", is_prefix=True)


@pytest.mark.parametrize(
    ("account_id", "options"),
    [
        (None, {}),
        (None, {"contract_key": "a"}),
        ("Alice.near", {}),
        ("a" * 65, {}),
        ("alice.near\n", {}),
        ("alice.near", {"contract_key": "a", "contract_code": True}),
        ("alice.near", {"contract_key": "hex:0"}),
        ("alice.near", {"contract_key": "base64:?"}),
        ("alice.near", {"contract_key": "a" * 3000}),
        ("alice.near", {"access_key": "alice"}),
        ("alice.near", {"access_key": "ed25519:1111"}),
        ("alice.near", {"access_key": "ed25519:" + "1" * 1000}),
        ("alice.near", {"access_key": "ed25519:0OIl"}),
        ("alice.near", {"trie_key": "hex:" + "00" * 3000}),
    ],
)
def test_what_is_no_record_is_refused(account_id: str | None, options: dict[str, Any]) -> None:
    """No account, two things at once, and digits that are none."""
    with pytest.raises(InvalidInputError):
        wanted_record(account_id, **options)


@pytest.mark.parametrize("mistyped", ["", "0"])
def test_a_secret_key_is_not_repeated(mistyped: str) -> None:
    """A secret key given by mistake does not get into the error, nor one with a character that is none of base58."""
    secret = base58_encode(bytes(range(64)))
    secret = secret[: len(secret) - len(mistyped)] + mistyped
    with pytest.raises(InvalidInputError) as raised:
        parse_public_key(f"ed25519:{secret}", "--access-key")
    assert secret[:20] not in str(raised.value)
