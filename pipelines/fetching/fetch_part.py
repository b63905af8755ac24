"""A state part as manifest and statement describe it: what a source is asked for, and what its bytes must be."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.fetching.source import WantedObject
from schemas.ids import CryptoHash, PartId
from schemas.nearcore.state_part import Encoding
from schemas.published.manifest import Manifest
from schemas.published.manifest_shard import STORED_BYTES_MAX, ManifestShard
from schemas.published.shard_statement import ShardStatement


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


def parts_to_fetch(manifest: Manifest, listed: ManifestShard, statement: ShardStatement) -> tuple[FetchPart, ...]:
    """Return the parts of a shard that a manifest lists, in its order.

    Args:
        statement: the one that the manifest names.
    """
    return tuple(
        FetchPart(
            object_name=manifest.layout.state_part(listed.shard_id, PartId(part.part_id, listed.num_parts)),
            shard_id=listed.shard_id,
            part_id=PartId(part.part_id, listed.num_parts),
            encoding=manifest.encoding,
            size=part.size,
            sha256=part.sha256,
            state_root=listed.state_root,
            decoded_size=statement.parts[part.part_id].decoded_size,
            decoded_sha256=statement.parts[part.part_id].sha256,
        )
        for part in listed.parts
    )
