"""A state part as manifest and statement describe it: what a source is asked for, and what its bytes must be."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.fetching.source import WantedObject
from schemas.ids import CryptoHash, PartId
from schemas.nearcore.state_part import Encoding
from schemas.published.manifest_shard import STORED_BYTES_MAX


@dataclass(frozen=True, slots=True)
class FetchPart:
    """A part to fetch, and all that it must be."""

    object_name: str
    shard_id: int
    part_id: PartId
    encoding: Encoding
    size: int
    sha256: str
    """Of the stored bytes, in hexadecimal."""
    state_root: CryptoHash
    decoded_size: int
    decoded_sha256: str
    stored_otherwise: frozenset[str] = frozenset()
    """Sources that offer a manifest of their own in which this part has other stored bytes: they are right not to have these."""

    def __post_init__(self) -> None:
        assert 0 <= self.size <= STORED_BYTES_MAX, self.size

    def wanted(self) -> WantedObject:
        """Return what a source is asked for."""
        return WantedObject(self.object_name, self.size, self.size, self.shard_id, self.part_id)
