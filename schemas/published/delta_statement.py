"""Delta statements: what changed in one shard between two epochs, object by object, and nothing about who says so or when.

The payload is an in-toto Statement in canonical JSON, as a shard statement's is: honest producers of the same objects write the same
bytes. It lies in the later epoch's folder, which is the *target*; the other epoch is the *base*. Which of the two is the higher is not
said by the format, but a manifest lists deltas from lower epochs alone.

Subjects, in this order: ``shard_id=S`` with the target's state root, and each object of the delta. Of the base state only the records
within ``base_ranges`` are taken: all of them, but where a resharding made the shard out of another one, and then those that the
child has of its parent's. What a delta says is never believed: parts that are made with it are compared with the target's shard statement.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from schemas.errors import ManifestError
from schemas.ids import CryptoHash, ShardUId
from schemas.json_document import FieldReader
from schemas.json_limits import JsonLimits
from schemas.nearcore.epoch_context import CHAIN_ID_PATTERN
from schemas.nearcore.flat_state_limits import KEY_BYTES_MAX
from schemas.published.delta_object import DELTA_OBJECT_BYTES_MAX
from schemas.published.dsse import PAYLOAD_BYTES_MAX
from schemas.published.in_toto import decode_in_toto, encode_in_toto, subject_sha256
from schemas.published.object_layout import DELTA_OBJECTS_MAX, EpochLayout, delta_object_name, shard_folder_name

DELTA_STATEMENT_TYPE: Final = "urn:statecast:delta-statement:v1"
"""Predicate type; a change that readers must know of gets a new one."""

BASE_RANGES_MAX: Final = 512
"""Most key ranges of a base that are taken: two for each first byte of a key."""

# An object is an object with six fields, and a subject two objects with two; a range is an object with two. Nothing else may be there.
_LIMITS = JsonLimits(PAYLOAD_BYTES_MAX, 3 * DELTA_OBJECTS_MAX + 2 * BASE_RANGES_MAX + 64, 9 * DELTA_OBJECTS_MAX + 2 * BASE_RANGES_MAX + 64)

_COUNT_MAX: Final = 2**48


@dataclass(frozen=True, slots=True)
class DeltaEnd:
    """One of the two states that a delta lies between."""

    epoch_height: int
    epoch_id: CryptoHash
    shard_uid: ShardUId
    state_root: CryptoHash

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "epoch_height": self.epoch_height,
            "epoch_id": str(self.epoch_id),
            "shard_uid": str(self.shard_uid),
            "state_root": str(self.state_root),
        }

    @classmethod
    def from_json(cls, reader: FieldReader) -> DeltaEnd:
        """Build from decoded JSON values; raises ManifestError on another form."""
        epoch_height, epoch_id = reader.number("epoch_height", 0, 2**64 - 1), reader.hash("epoch_id")
        return cls(epoch_height, epoch_id, reader.shard_uid("shard_uid"), reader.hash("state_root"))


@dataclass(frozen=True, slots=True)
class BaseRange:
    """Trie keys of the base state that are taken: ``begin <= key < end``."""

    begin: bytes
    end: bytes | None
    """None for the right end of the shard."""


WHOLE_BASE: Final = (BaseRange(b"", None),)
"""All records of the base state are taken."""


@dataclass(frozen=True, slots=True)
class DeltaObject:
    """One object of a delta: changed records of adjacent keys."""

    first_key: bytes
    last_key: bytes
    records: int
    """Rows: records that are new or have another value, and keys that are gone."""
    deleted: int
    """How many of them are gone."""
    size: int
    """Stored bytes."""
    sha256: str
    """Of the stored bytes, in hexadecimal."""


@dataclass(frozen=True, slots=True)
class DeltaStatement:
    """What changed in one shard between two epochs."""

    chain_id: str
    base: DeltaEnd
    target: DeltaEnd
    base_ranges: tuple[BaseRange, ...]
    """Ascending, not touching each other. `WHOLE_BASE` where no resharding lies between."""
    objects: tuple[DeltaObject, ...]
    """Ascending by key; none where nothing changed."""

    @property
    def shard_id(self) -> int:
        """The target's shard id."""
        return self.target.shard_uid.shard_id

    @property
    def layout(self) -> EpochLayout:
        """The names of the target's objects, in whose folder the delta's are."""
        return EpochLayout(self.chain_id, self.target.epoch_height, self.target.epoch_id)

    @property
    def records(self) -> int:
        """Rows of all objects."""
        return sum(found.records for found in self.objects)

    @property
    def deleted(self) -> int:
        """Keys that are gone, within ``base_ranges``."""
        return sum(found.deleted for found in self.objects)

    @property
    def size(self) -> int:
        """Stored bytes of all objects."""
        return sum(found.size for found in self.objects)

    @property
    def payload_sha256(self) -> str:
        """SHA-256 of the payload in hexadecimal: the statement's name in a manifest."""
        return hashlib.sha256(self.to_payload()).hexdigest()

    def object_name(self, index: int) -> str:
        """Return an object's name relative to the target epoch's folder."""
        return delta_object_name(self.base.epoch_id, self.shard_id, index)

    def to_payload(self) -> bytes:
        """Return the canonical payload."""
        problem = self._problem()
        assert problem is None, problem
        predicate: dict[str, Any] = {
            "chain_id": self.chain_id,
            "shard_id": self.shard_id,
            "base": self.base.to_json(),
            "target": self.target.to_json(),
            "base_ranges": [{"begin": one.begin.hex(), "end": None if one.end is None else one.end.hex()} for one in self.base_ranges],
            "records": self.records,
            "deleted": self.deleted,
            "objects": [
                {
                    "index": index,
                    "first_key": found.first_key.hex(),
                    "last_key": found.last_key.hex(),
                    "records": found.records,
                    "deleted": found.deleted,
                    "size": found.size,
                }
                for index, found in enumerate(self.objects)
            ],
        }
        subjects = {shard_folder_name(self.shard_id): self.target.state_root.hex()}
        subjects |= {self.object_name(index): found.sha256 for index, found in enumerate(self.objects)}
        return encode_in_toto(DELTA_STATEMENT_TYPE, subjects, predicate)

    @classmethod
    def from_payload(cls, payload: bytes, where: str) -> DeltaStatement:
        """Parse a payload.

        Raises:
            ManifestError: not a delta statement, one that contradicts itself, or not in the canonical encoding.
        """
        subjects, predicate = decode_in_toto(payload, DELTA_STATEMENT_TYPE, _LIMITS, DELTA_OBJECTS_MAX + 1, where)
        base, target = DeltaEnd.from_json(predicate.inner("base")), DeltaEnd.from_json(predicate.inner("target"))
        objects = []
        for index, entry in enumerate(predicate.inners("objects", DELTA_OBJECTS_MAX)):
            name = delta_object_name(base.epoch_id, target.shard_uid.shard_id, index)
            records = entry.number("records", 1, _COUNT_MAX)
            objects.append(
                DeltaObject(
                    first_key=entry.hex_bytes("first_key", KEY_BYTES_MAX),
                    last_key=entry.hex_bytes("last_key", KEY_BYTES_MAX),
                    records=records,
                    deleted=entry.number("deleted", 0, records),
                    size=entry.number("size", 1, DELTA_OBJECT_BYTES_MAX),
                    sha256=subject_sha256(entry, subjects, name),
                )
            )
        statement = cls(
            chain_id=predicate.text("chain_id", 64, CHAIN_ID_PATTERN),
            base=base,
            target=target,
            base_ranges=tuple(
                BaseRange(entry.hex_bytes("begin", KEY_BYTES_MAX), None if entry.is_null("end") else entry.hex_bytes("end", KEY_BYTES_MAX))
                for entry in predicate.inners("base_ranges", BASE_RANGES_MAX)
            ),
            objects=tuple(objects),
        )
        problem = statement._problem()
        if problem is not None:
            raise ManifestError(problem=problem, where=where)
        if statement.to_payload() != payload:
            raise ManifestError(
                problem="the delta statement is not in its canonical encoding, or has fields that it should not have", where=where
            )
        return statement

    def _problem(self) -> str | None:
        """Return what contradicts itself, or None."""
        if self.base.epoch_id == self.target.epoch_id:
            return "a delta lies between two epochs"
        if len(self.objects) > DELTA_OBJECTS_MAX or len(self.base_ranges) > BASE_RANGES_MAX:
            return f"a delta has at most {DELTA_OBJECTS_MAX} objects and {BASE_RANGES_MAX} ranges"
        if any(found.first_key > found.last_key for found in self.objects) or any(
            left.last_key >= right.first_key for left, right in pairwise(self.objects)
        ):
            return "the objects of a delta ascend by key and do not overlap"
        ends = [one.end for one in self.base_ranges]
        apart = all(left.end is not None and left.end < right.begin for left, right in pairwise(self.base_ranges))
        if None in ends[:-1] or not apart or any(one.end is not None and one.end <= one.begin for one in self.base_ranges):
            return "the ranges of the base ascend, do not touch each other, and none is empty"
        return None
