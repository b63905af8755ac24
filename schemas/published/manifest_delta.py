"""A delta in a manifest: what changed in one shard since a lower epoch, by the digest of its statement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from schemas.ids import CryptoHash
from schemas.json_document import FieldReader
from schemas.published.delta_object import DELTA_OBJECT_BYTES_MAX
from schemas.published.object_layout import DELTA_OBJECTS_MAX

MANIFEST_DELTAS_MAX: Final = 65_536
"""Most deltas of a manifest, over all shards and bases."""


@dataclass(frozen=True, slots=True)
class ManifestDelta:
    """One delta."""

    shard_id: int
    base_epoch_height: int
    base_epoch_id: CryptoHash
    statement_sha256: str
    """Of the delta statement's payload, in hexadecimal."""
    objects: int
    size: int
    """Stored bytes of all objects: what a reader chooses by."""

    @property
    def key(self) -> tuple[int, int, str]:
        """The delta's place in a manifest."""
        return self.shard_id, self.base_epoch_height, str(self.base_epoch_id)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "shard_id": self.shard_id,
            "base_epoch_height": self.base_epoch_height,
            "base_epoch_id": str(self.base_epoch_id),
            "statement_sha256": self.statement_sha256,
            "objects": self.objects,
            "size": self.size,
        }

    @classmethod
    def from_json(cls, reader: FieldReader) -> ManifestDelta:
        """Build from decoded JSON values; raises ManifestError on another form."""
        objects = reader.number("objects", 0, DELTA_OBJECTS_MAX)
        return cls(
            shard_id=reader.number("shard_id", 0, 2**32 - 1),
            base_epoch_height=reader.number("base_epoch_height", 0, 2**64 - 1),
            base_epoch_id=reader.hash("base_epoch_id"),
            statement_sha256=reader.sha256("statement_sha256"),
            objects=objects,
            size=reader.number("size", objects, objects * DELTA_OBJECT_BYTES_MAX),
        )
