"""What a repair asks of a maker of lost parts and deltas: values and a protocol, nothing done.

Making them is a producer's work, so it is done elsewhere (`pipelines.producing.rebuild`) and given to the repair. Nothing of it is believed: what comes
back has the bytes that the manifest says, or is not put.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from schemas.published.manifest import Manifest
from schemas.published.manifest_delta import ManifestDelta


@dataclass(frozen=True, slots=True)
class Remade:
    """Objects that were made again, in a store of this machine."""

    store_url: str
    """They have the names there that they have in the bucket; those that could not be made are not there."""
    source: str
    """Out of what, for people."""


class Remaker(Protocol):
    """Makes lost objects of a store again out of what else is there."""

    def remake_parts(self, manifest: Manifest, shard_id: int, lost: Collection[int]) -> Remade:
        """Rebuild parts of a shard.

        Args:
            lost: ids of parts that are missing or wrong; the others may be used.
        Raises:
            StatecastError: nothing leads to the shard's state, or what does is not right either.
        """
        ...

    def remake_delta(self, manifest: Manifest, listed: ManifestDelta) -> Remade:
        """Make the objects of a delta again, whose statement is there.

        Raises:
            StatecastError: what it was made of is not there.
        """
        ...
