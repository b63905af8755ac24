"""JSON as signed documents need it: one encoding for one value, and a reader that takes nothing on trust.

Canonical encoding: UTF-8 with all non-ASCII escaped, keys ascending, no spaces, integers only. The reader refuses what has no
single meaning: a key twice, fractions, NaN, numbers of endless digits; and before it decodes anything, what has more bytes, values or
levels than documents of its kind (`schemas.json_limits`).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NoReturn

from schemas.errors import InvalidInputError, ManifestError
from schemas.ids import CryptoHash, ShardUId
from schemas.json_limits import JsonLimits

INTEGER_DIGITS_MAX = 20
"""Longest integer: an unsigned 64-bit one."""

_TIME = "%Y-%m-%dT%H:%M:%SZ"
_TIME_PATTERN = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
_SHARD_UID_LENGTH_MAX = 24
_SHA256_HEX = re.compile(r"[0-9a-f]{64}")


def encode_json(document: dict[str, Any]) -> bytes:
    """Return the canonical encoding."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def decode_json(data: bytes, limits: JsonLimits, where: str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        ManifestError: over a limit, not JSON, ambiguous, or no object.
    """
    too_much = limits.problem(data)
    if too_much is not None:
        raise ManifestError(problem=too_much, where=where)

    def refuse(text: str) -> NoReturn:
        raise ManifestError(problem=f"{text[:40]} is no whole number of at most {INTEGER_DIGITS_MAX} digits", where=where)

    def integer(text: str) -> int:
        return int(text) if len(text) <= INTEGER_DIGITS_MAX else refuse(text)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ManifestError(problem="a field is there twice", where=where)
        return found

    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_int=integer, parse_float=refuse, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        if isinstance(error, ManifestError):
            raise
        raise ManifestError(problem=f"the document is not JSON: {type(error).__name__}", where=where) from None
    if not isinstance(document, dict):
        raise ManifestError(problem="the document is no JSON object", where=where)
    return document


class FieldReader:
    """Takes typed fields out of a decoded JSON object; every complaint names the field.

    Every method raises ManifestError when the field is missing or has another form.
    """

    def __init__(self, document: object, where: str) -> None:
        self.where = where
        if not isinstance(document, dict):
            self.fail("a JSON object is needed here")
        self._document = document

    def fail(self, problem: str) -> NoReturn:
        """Raise a complaint about this object."""
        raise ManifestError(problem=problem, where=self.where)

    def names(self) -> frozenset[str]:
        """The fields that are there."""
        return frozenset(self._document)

    def value(self, name: str) -> Any:
        """Any value, null included."""
        if name not in self._document:
            self.fail(f"field {name} is missing")
        return self._document[name]

    def is_null(self, name: str) -> bool:
        """Whether the field is there and null."""
        return self.value(name) is None

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return name in self._document and not self.is_null(name)

    def text(self, name: str, length_max: int, pattern: str = r"[\x20-\x7e]*") -> str:
        """Text that matches a pattern whole; printable ASCII by default."""
        value = self.value(name)
        if not isinstance(value, str) or len(value) > length_max or re.fullmatch(pattern, value) is None:
            self.fail(f"field {name} must be text of at most {length_max} characters like {pattern}")
        return value

    def literal(self, name: str, expected: object) -> None:
        """Exactly this value."""
        if self.value(name) != expected or isinstance(self.value(name), bool) is not isinstance(expected, bool):
            self.fail(f"field {name} must be {expected!r}")

    def number(self, name: str, minimum: int, maximum: int) -> int:
        """A whole number, both ends included."""
        value = self.value(name)
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
            self.fail(f"field {name} must be a whole number from {minimum} to {maximum}")
        return value

    def sha256(self, name: str) -> str:
        """A SHA-256 as 64 lowercase hexadecimal digits."""
        return self.text(name, 64, _SHA256_HEX.pattern)

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self.value(name)
        if not isinstance(value, bool):
            self.fail(f"field {name} must be true or false")
        return value

    def time(self, name: str) -> datetime:
        """A time in UTC with whole seconds, as `encode_time` writes it."""
        text = self.text(name, 20, _TIME_PATTERN)
        try:
            return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
        except ValueError:
            self.fail(f"field {name} is no time")

    def hash(self, name: str) -> CryptoHash:
        """A 32-byte hash in base58, spelled as nearcore spells it."""
        text = self.text(name, 44)
        try:
            found = CryptoHash.from_base58(text)
        except InvalidInputError as error:
            self.fail(f"field {name}: {error.problem}")
        if str(found) != text:
            self.fail(f"field {name} is not the base58 that nearcore writes")
        return found

    def shard_uid(self, name: str) -> ShardUId:
        """A shard and its layout's version, as ``s6.v3``."""
        try:
            return ShardUId.parse(self.text(name, _SHARD_UID_LENGTH_MAX))
        except InvalidInputError as error:
            self.fail(f"field {name}: {error.problem}")

    def hex_bytes(self, name: str, length_max: int) -> bytes:
        """Bytes as lowercase hexadecimal digits."""
        return bytes.fromhex(self.text(name, 2 * length_max, r"(?:[0-9a-f]{2})*"))

    def listed(self, name: str, length_max: int) -> list[Any]:
        """A list."""
        value = self.value(name)
        if not isinstance(value, list) or len(value) > length_max:
            self.fail(f"field {name} must be a list of at most {length_max}")
        return value

    def inner(self, name: str) -> FieldReader:
        """An object inside this one."""
        return FieldReader(self.value(name), f"{self.where}: {name}")

    def inners(self, name: str, length_max: int) -> Iterator[FieldReader]:
        """A list of objects, one after the other."""
        listed = self.listed(name, length_max)
        return (FieldReader(entry, f"{self.where}: {name}[{index}]") for index, entry in enumerate(listed))

    def texts(self, name: str, count_max: int, length_max: int, pattern: str) -> tuple[str, ...]:
        """A list of texts that match a pattern whole."""
        found = self.listed(name, count_max)
        for entry in found:
            if not isinstance(entry, str) or len(entry) > length_max or re.fullmatch(pattern, entry) is None:
                self.fail(f"an entry of {name} must be text of at most {length_max} characters like {pattern}")
        return tuple(found)


def encode_time(time: datetime) -> str:
    """Return a time with a zone as text in UTC, cut to whole seconds."""
    assert time.tzinfo is not None
    return time.astimezone(UTC).strftime(_TIME)


def decode_base64(text: object, bytes_max: int, where: str) -> bytes:
    """Decode standard base64 with padding, spelled the one way that encoders spell it.

    Raises:
        ManifestError: another form, or more than ``bytes_max`` bytes.
    """
    if not isinstance(text, str) or len(text) > 4 * -(-bytes_max // 3):
        raise ManifestError(problem=f"base64 text of at most {bytes_max} bytes is needed here", where=where)
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise ManifestError(problem="this is not base64", where=where) from None
    # Of one length and alphabet, texts of the same bytes can differ in the bits that the last group has too many.
    last = len(text) - 4
    if len(data) > bytes_max or len(text) != 4 * -(-len(data) // 3) or encode_base64(data[last // 4 * 3 :]) != text[last:]:
        raise ManifestError(problem=f"this is not canonical base64 of at most {bytes_max} bytes", where=where)
    return data


def encode_base64(data: bytes) -> str:
    """Encode as standard base64 with padding."""
    return base64.b64encode(data).decode()
