"""Which trie key a person means: an account, an access key, contract code, contract state, or a key in raw bytes."""

from __future__ import annotations

import base64
import binascii
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from schemas.errors import InvalidInputError
from schemas.ids import base58_decode
from schemas.nearcore.flat_state_limits import KEY_BYTES_MAX
from schemas.nearcore.trie_key import access_key_key, account_key, contract_code_key, contract_data_key

_ACCOUNT_ID: Final = r"[a-z0-9_.-]{2,64}"
# The trie has of an ML-DSA-65 key its hash alone.
_PUBLIC_KEYS: Final = {"ed25519": (0, 32), "secp256k1": (1, 64), "ml-dsa-65-hash": (3, 32)}
_BASE58_LENGTH_MAX: Final = 88


@dataclass(frozen=True, slots=True)
class WantedRecord:
    """What is to be proven."""

    account_id: str | None
    """Decides the shard; None where it is named."""
    trie_key: bytes
    is_prefix: bool = False
    """All keys that begin with ``trie_key``."""


def wanted_record(
    account_id: str | None,
    *,
    access_key: str | None = None,
    contract_key: str | None = None,
    contract_prefix: str | None = None,
    contract_code: bool = False,
    trie_key: str | None = None,
) -> WantedRecord:
    """Return what the options name; with an account alone, the account's own record.

    Raises:
        InvalidInputError: no account, more than one thing, or a form that is none.
    """
    given = [access_key is not None, contract_key is not None, contract_prefix is not None, contract_code, trie_key is not None]
    if sum(given) > 1:
        raise InvalidInputError(
            problem="name one record",
            remedy="--access-key, --contract-key, --contract-prefix, --contract-code and --trie-key exclude each other.",
        )
    if account_id is not None and re.fullmatch(_ACCOUNT_ID, account_id) is None:
        raise InvalidInputError(problem=f"{account_id[:80]!r} is no account id", where="--account")
    if trie_key is not None:
        return WantedRecord(account_id, _limited(parse_bytes(trie_key, "--trie-key"), "--trie-key"))
    if account_id is None:
        raise InvalidInputError(
            problem="neither an account nor a trie key is given", remedy="Give --account, or --trie-key with --shard-id."
        )
    if access_key is not None:
        return WantedRecord(account_id, access_key_key(account_id, parse_public_key(access_key, "--access-key")))
    if contract_key is not None:
        key = contract_data_key(account_id, parse_bytes(contract_key, "--contract-key"))
        return WantedRecord(account_id, _limited(key, "--contract-key"))
    if contract_prefix is not None:
        prefix = contract_data_key(account_id, parse_bytes(contract_prefix, "--contract-prefix"))
        return WantedRecord(account_id, _limited(prefix, "--contract-prefix"), is_prefix=True)
    return WantedRecord(account_id, contract_code_key(account_id) if contract_code else account_key(account_id))


def parse_bytes(text: str, option: str) -> bytes:
    """Return the bytes of ``hex:…``, ``base64:…`` or a text.

    Raises:
        InvalidInputError: digits that are none.
    """
    kind, separator, digits = text.partition(":")
    try:
        if separator and kind == "hex":
            return bytes.fromhex(digits.removeprefix("0x"))
        if separator and kind == "base64":
            return base64.b64decode(digits, validate=True)
        return text.encode()
    except (ValueError, binascii.Error) as error:
        raise InvalidInputError(
            problem=f"{text[:80]!r} can't be read: {error}", where=option, remedy="Write a text, hex:… or base64:…."
        ) from None


def parse_public_key(text: str, option: str) -> bytes:
    """Return the borsh bytes of a public key, or of its hash, as NEAR shows it.

    Raises:
        InvalidInputError: another form.
    """
    kind, _, encoded = text.partition(":")
    if kind in _PUBLIC_KEYS and len(encoded) <= _BASE58_LENGTH_MAX:
        tag, length = _PUBLIC_KEYS[kind]
        # What can't be decoded is repeated by that error; here it is not.
        with suppress(InvalidInputError):
            key = base58_decode(encoded)
            if len(key) == length:
                return bytes([tag]) + key
    # The text may be a secret key given by mistake: it is not repeated.
    raise InvalidInputError(
        problem="this is no public key", where=option, remedy="Write ed25519:…, secp256k1:… or ml-dsa-65-hash:… and base58 characters."
    )


def _limited(key: bytes, option: str) -> bytes:
    if len(key) > KEY_BYTES_MAX:
        raise InvalidInputError(problem=f"a trie key has at most {KEY_BYTES_MAX} bytes, this has {len(key)}", where=option)
    return key
