"""The ``latest`` pointer of a chain: which epoch's manifest is the newest complete one.

It is not signed: it saves a listing, and readers verify the manifest. It moves forward only.
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.errors import ManifestError
from schemas.ids import CryptoHash
from schemas.json_document import FieldReader, decode_json, encode_json
from schemas.json_limits import JsonLimits
from schemas.nearcore.epoch_context import CHAIN_ID_PATTERN
from schemas.published.object_layout import REVISION_MAX, EpochLayout

POINTER_BYTES_MAX = 1 << 16
"""Largest pointer that is read."""

_FORMAT = "urn:statecast:latest:v1"


@dataclass(frozen=True, slots=True)
class LatestPointer:
    """What ``latest.json`` says."""

    chain_id: str
    epoch_height: int
    epoch_id: CryptoHash
    revision: int
    manifest_sha256: str
    """Of the manifest's payload, in hexadecimal."""

    @property
    def layout(self) -> EpochLayout:
        """The names of the epoch's objects."""
        return EpochLayout(self.chain_id, self.epoch_height, self.epoch_id)

    def supersedes(self, other: LatestPointer) -> bool:
        """Whether this pointer may replace another one: a later epoch, or a later revision of the same."""
        if self.epoch_height == other.epoch_height and self.epoch_id != other.epoch_id:
            return False
        return self.chain_id == other.chain_id and (self.epoch_height, self.revision) > (other.epoch_height, other.revision)

    def to_bytes(self) -> bytes:
        """Return the wire form, canonical JSON."""
        return encode_json(
            {
                "format": _FORMAT,
                "chain_id": self.chain_id,
                "epoch_height": self.epoch_height,
                "epoch_id": str(self.epoch_id),
                "manifest": self.layout.manifest,
                "revision": self.revision,
                "manifest_sha256": self.manifest_sha256,
            }
        )

    @classmethod
    def parse(cls, data: bytes, where: str) -> LatestPointer:
        """Parse the wire form; unknown fields are ignored.

        Raises:
            ManifestError: not a pointer, or its manifest is not where this layout has it.
        """
        reader = FieldReader(decode_json(data, JsonLimits(POINTER_BYTES_MAX), where), where)
        reader.literal("format", _FORMAT)
        pointer = cls(
            chain_id=reader.text("chain_id", 64, CHAIN_ID_PATTERN),
            epoch_height=reader.number("epoch_height", 0, 2**64 - 1),
            epoch_id=reader.hash("epoch_id"),
            revision=reader.number("revision", 1, REVISION_MAX),
            manifest_sha256=reader.sha256("manifest_sha256"),
        )
        if reader.text("manifest", 512) != pointer.layout.manifest:
            raise ManifestError(problem="the pointer names another manifest than its epoch's", where=where)
        return pointer
