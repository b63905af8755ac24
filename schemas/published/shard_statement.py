"""Shard statements: what the state parts of one shard of one epoch are, and nothing about who says so or when.

The payload is an in-toto Statement in canonical JSON, so honest producers of the same parts write the same bytes: their
signatures can be gathered under one payload, and two different payloads for one (epoch, shard, num_parts) prove that a producer is
wrong. Digests are of *decoded* parts (PartialState bytes), which no encoder's version changes.

Subjects, in this order: ``shard_id=S`` with the state root for its digest (the SHA-256 of the root node, zeros for an empty trie),
each part under its file name in the shard's folder, and the state header where there is one. The predicate has the rest. A
statement has no unknown fields: what does not encode back to the same bytes is refused.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from schemas.errors import ManifestError
from schemas.ids import CryptoHash, PartId, ShardUId
from schemas.json_document import FieldReader
from schemas.json_limits import JsonLimits
from schemas.nearcore.epoch_context import CHAIN_ID_PATTERN
from schemas.nearcore.flat_state_limits import KEY_BYTES_MAX
from schemas.nearcore.state_part import PARTIAL_STATE_BYTES_MAX
from schemas.published.dsse import PAYLOAD_BYTES_MAX
from schemas.published.in_toto import decode_in_toto, encode_in_toto, subject_sha256
from schemas.published.object_layout import part_file_name, shard_folder_name

SHARD_STATEMENT_TYPE = "urn:statecast:shard-statement:v1"
"""Predicate type; a change that readers must know of gets a new one."""

STATEMENT_PARTS_MAX = 100_000
"""Most parts of a statement: a shard of about 3 TB of memory usage."""

# A part is an object with four fields, and a subject two objects with two. Nothing else may be there.
_LIMITS = JsonLimits(PAYLOAD_BYTES_MAX, 3 * STATEMENT_PARTS_MAX + 64, 6 * STATEMENT_PARTS_MAX + 64)

_SHA256_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class StatementPart:
    """One state part."""

    part_id: int
    key_begin: bytes
    """First trie key of the part's interval; empty for part 0."""
    key_end: bytes | None
    """First trie key after it; None at the right edge. Equal to ``key_begin`` for a part without keys."""
    decoded_size: int
    """Bytes of the PartialState."""
    sha256: str
    """Of the PartialState bytes, in hexadecimal."""


@dataclass(frozen=True, slots=True)
class ShardStatement:
    """All parts of one shard."""

    chain_id: str
    epoch_height: int
    epoch_id: CryptoHash
    sync_hash: CryptoHash
    shard_uid: ShardUId
    state_root: CryptoHash
    memory_usage: int
    """The state root's, 0 for an empty trie."""
    num_parts: int
    header_sha256: str | None
    """Of the state header's bytes, in hexadecimal; None when the producer had none."""
    parts: tuple[StatementPart, ...]
    """All of them, ascending by part id."""

    @property
    def shard_id(self) -> int:
        """The shard's id in object names."""
        return self.shard_uid.shard_id

    @property
    def payload_sha256(self) -> str:
        """SHA-256 of the payload in hexadecimal: the statement's name in a manifest."""
        return hashlib.sha256(self.to_payload()).hexdigest()

    def to_payload(self) -> bytes:
        """Return the canonical payload."""
        problem = self._problem()
        assert problem is None, problem
        predicate: dict[str, Any] = {
            "chain_id": self.chain_id,
            "epoch_height": self.epoch_height,
            "epoch_id": str(self.epoch_id),
            "sync_hash": str(self.sync_hash),
            "shard_id": self.shard_id,
            "shard_uid": str(self.shard_uid),
            "state_root": str(self.state_root),
            "memory_usage": self.memory_usage,
            "num_parts": self.num_parts,
            "has_state_header": self.header_sha256 is not None,
            "parts": [
                {
                    "part_id": part.part_id,
                    "key_begin": part.key_begin.hex(),
                    "key_end": None if part.key_end is None else part.key_end.hex(),
                    "decoded_size": part.decoded_size,
                }
                for part in self.parts
            ],
        }
        return encode_in_toto(SHARD_STATEMENT_TYPE, self._subjects(), predicate)

    @classmethod
    def from_payload(cls, payload: bytes, where: str) -> ShardStatement:
        """Parse a payload.

        Raises:
            ManifestError: not a shard statement, one that contradicts itself, or not in the canonical encoding.
        """
        subjects, predicate = decode_in_toto(payload, SHARD_STATEMENT_TYPE, _LIMITS, STATEMENT_PARTS_MAX + 2, where)
        shard_uid = predicate.shard_uid("shard_uid")
        statement = cls(
            chain_id=predicate.text("chain_id", 64, CHAIN_ID_PATTERN),
            epoch_height=predicate.number("epoch_height", 0, 2**64 - 1),
            epoch_id=predicate.hash("epoch_id"),
            sync_hash=predicate.hash("sync_hash"),
            shard_uid=shard_uid,
            state_root=predicate.hash("state_root"),
            memory_usage=predicate.number("memory_usage", 0, 2**64 - 1),
            num_parts=predicate.number("num_parts", 0, STATEMENT_PARTS_MAX),
            header_sha256=subjects.get(_header_subject(shard_uid.shard_id)),
            parts=tuple(
                _read_part(entry, subjects, shard_uid.shard_id, predicate.number("num_parts", 0, STATEMENT_PARTS_MAX))
                for entry in predicate.inners("parts", STATEMENT_PARTS_MAX)
            ),
        )
        problem = statement._problem()
        if problem is not None:
            raise ManifestError(problem=problem, where=where)
        if statement.to_payload() != payload:
            raise ManifestError(
                problem="the shard statement is not in its canonical encoding, or has fields that it should not have", where=where
            )
        return statement

    def _subjects(self) -> dict[str, str]:
        subjects = {shard_folder_name(self.shard_id): self.state_root.hex()}
        subjects |= {_part_subject(self.shard_id, part.part_id, self.num_parts): part.sha256 for part in self.parts}
        if self.header_sha256 is not None:
            subjects[_header_subject(self.shard_id)] = self.header_sha256
        return subjects

    def _problem(self) -> str | None:
        """Return what contradicts itself, or None."""
        if [part.part_id for part in self.parts] != list(range(self.num_parts)) or self.num_parts > STATEMENT_PARTS_MAX:
            return f"a shard of {self.num_parts} parts lists each of them once, ascending, and at most {STATEMENT_PARTS_MAX}"
        if (self.memory_usage == 0) != (self.state_root == bytes(32)) or (self.memory_usage > 0 and self.num_parts == 0):
            return "state root, memory usage and num_parts are zero for an empty trie alone"
        digests = [part.sha256 for part in self.parts] + ([] if self.header_sha256 is None else [self.header_sha256])
        if not all(_SHA256_HEX.fullmatch(digest) for digest in digests):
            return "a digest is 64 lowercase hexadecimal digits"
        return self._interval_problem()

    def _interval_problem(self) -> str | None:
        if not self.parts:
            return None
        if self.memory_usage == 0:
            # Without keys there is no boundary, and every part spans everything.
            whole = all(part.key_begin == b"" and part.key_end is None for part in self.parts)
            return None if whole else "parts of an empty trie have no boundaries"
        ends = [part.key_end for part in self.parts]
        joined = all(left.key_end == right.key_begin for left, right in pairwise(self.parts))
        ascending = all(part.key_end is None or part.key_begin <= part.key_end for part in self.parts)
        if self.parts[0].key_begin != b"" or ends[-1] is not None or None in ends[:-1] or not joined or not ascending:
            return "the parts' key intervals do not follow one another from the left edge to the right"
        return None


def _read_part(entry: FieldReader, subjects: dict[str, str], shard_id: int, num_parts: int) -> StatementPart:
    part_id = entry.number("part_id", 0, max(num_parts - 1, 0))
    name = _part_subject(shard_id, part_id, max(num_parts, 1))
    return StatementPart(
        part_id=part_id,
        key_begin=entry.hex_bytes("key_begin", KEY_BYTES_MAX),
        key_end=None if entry.is_null("key_end") else entry.hex_bytes("key_end", KEY_BYTES_MAX),
        decoded_size=entry.number("decoded_size", 0, PARTIAL_STATE_BYTES_MAX),
        sha256=subject_sha256(entry, subjects, name),
    )


def _part_subject(shard_id: int, part_id: int, num_parts: int) -> str:
    return f"{shard_folder_name(shard_id)}/{part_file_name(PartId(part_id, num_parts))}"


def _header_subject(shard_id: int) -> str:
    return f"headers/{shard_folder_name(shard_id)}/header"
