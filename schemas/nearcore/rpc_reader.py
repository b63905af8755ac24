"""A reader of what a node's JSON-RPC answers: typed fields, every complaint a SourceError that names the field and the endpoint.

An answer of another form is the endpoint's fault, not the user's and not the chain's; one that does not hash is an IntegrityError and
is found elsewhere.
"""

from __future__ import annotations

from typing import NoReturn

from schemas.errors import InvalidInputError, SourceError
from schemas.ids import base58_decode
from schemas.json_document import FieldReader

ACCOUNT_ID_BYTES_MAX = 64
_DECIMAL_DIGITS_MAX = 39
_KEY_TYPES = {"ed25519": 0, "secp256k1": 1}
_KEY_TEXT_MAX = 120


class RpcReader(FieldReader):
    """As `FieldReader`, for answers of JSON-RPC.

    Every method raises SourceError when the field is missing or has another form.
    """

    def fail(self, problem: str) -> NoReturn:
        """Raise a complaint about this object."""
        raise SourceError(problem=f"the JSON-RPC answer has another form than nearcore's: {problem}", where=self.where)

    def u64(self, name: str) -> int:
        """An unsigned 64-bit number."""
        return self.number(name, 0, 2**64 - 1)

    def decimal(self, name: str) -> int:
        """An unsigned 128-bit number that is written as text."""
        number = int(self.text(name, _DECIMAL_DIGITS_MAX, r"\d+"))
        if number >= 2**128:
            self.fail(f"field {name} is no unsigned 128-bit number")
        return number

    def account_id(self, name: str) -> bytes:
        """An account id."""
        return self.text(name, ACCOUNT_ID_BYTES_MAX).encode()

    def key(self, name: str) -> bytes:
        """A public key or signature in borsh: the key type and the bytes."""
        return self.key_bytes(self.text(name, _KEY_TEXT_MAX))

    def key_bytes(self, text: object) -> bytes:
        """Return a public key or signature in borsh, of its text ``ed25519:BASE58``."""
        kind, _, encoded = text.partition(":") if isinstance(text, str) and len(text) <= _KEY_TEXT_MAX else ("", "", "")
        if kind not in _KEY_TYPES:
            self.fail("a key or signature looks like ed25519: or secp256k1: and base58")
        try:
            return bytes([_KEY_TYPES[kind]]) + base58_decode(encoded)
        except InvalidInputError as error:
            self.fail(error.problem)

    def byte_list(self, name: str, length_max: int) -> bytes:
        """Bytes as a list of numbers."""
        return self.as_bytes(self.listed(name, length_max))

    def as_bytes(self, values: object) -> bytes:
        """Return bytes of a list of numbers."""
        if not isinstance(values, list) or not all(type(value) is int and 0 <= value < 256 for value in values):
            self.fail("a list of bytes is needed here")
        return bytes(values)

    def object(self, name: str) -> RpcReader:
        """An object inside this one."""
        return RpcReader(self.value(name), f"{self.where}: {name}")

    def objects(self, name: str, length_max: int) -> list[RpcReader]:
        """A list of objects."""
        return [RpcReader(entry, f"{self.where}: {name}[{index}]") for index, entry in enumerate(self.listed(name, length_max))]
