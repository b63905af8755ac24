"""Where a fetch puts an epoch: a folder of this machine, or a store.

Whatever it is, a part has its final name there only after it was verified, and the manifest comes last. Temporary files are on this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from pipelines.fetching.fetch_part import FetchPart
from pipelines.trust.freshness import AcceptedManifests
from schemas.published.latest_pointer import LatestPointer
from schemas.published.manifest_delta import ManifestDelta

if TYPE_CHECKING:
    from pipelines.fetching.believed_epoch import BelievedEpoch


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object of a store, to be read in another process."""

    store_url: str
    name: str


HeldPart: TypeAlias = Path | StoredObject
"""What is to be a part: a file, or an object of a store."""

Landed: TypeAlias = Callable[[BaseException | None], None]
"""Told once that a part has its final name, or why not; in any thread."""


class EpochTarget(Protocol):
    """Takes one epoch at a time. Its methods are called by one thread."""

    @property
    def scratch(self) -> Path:
        """A folder for sources that need one; gone afterwards."""
        ...

    def opened(self) -> AbstractContextManager[None]:
        """Hold the target for one fetch; temporary files are removed before and after.

        Raises:
            ClaimedError: another fetch holds it.
            StoreError: it can't be written.
        """
        ...

    def accepted(self, chain_id: str) -> AcceptedManifests:
        """Read which manifests of a chain were accepted before.

        Raises:
            ManifestError: the memory is damaged.
            StoreError: it can't be read.
        """
        ...

    def remember(self, accepted: AcceptedManifests) -> None:
        """Write what is accepted, before anything of it is fetched: a kill must not make it forgotten; raises StoreError."""
        ...

    def look(self, epoch: BelievedEpoch) -> bool:
        """Look what is there of an epoch, without reading parts; return whether nothing is left to be brought.

        Raises:
            ManifestError: something else is published there as this epoch.
            StoreError: it can't be read.
        """
        ...

    def entered(self, epoch: BelievedEpoch) -> AbstractContextManager[None]:
        """Hold the epoch's place for as long as it is brought.

        Raises:
            ClaimedError: another writer holds it, or it is being deleted.
            ManifestError, StoreError: as `look`.
        """
        ...

    def has(self, part: FetchPart) -> bool:
        """Whether a part seems to be there, for a plan; raises StoreError."""
        ...

    def held(self, name: str, size: int, sha256: str) -> bytes | None:
        """Return the object of a name where it has these bytes; raises StoreError."""
        ...

    def present(self, parts: Sequence[FetchPart]) -> Iterator[tuple[FetchPart, HeldPart | None]]:
        """Yield the parts under whose names something lies, with what is to be judged; None where it was, and needs no more looks.

        Raises:
            StoreError: it can't be read.
        """
        ...

    def placed(self, part: FetchPart) -> HeldPart:
        """Say where a part can be read that is in place, or will be as soon as it has landed."""
        ...

    def temporary(self) -> Path:
        """Return the path of a new temporary file, which is not made yet."""
        ...

    def land_part(self, temporary: Path, part: FetchPart, landed: Landed) -> None:
        """Begin to give a part, verified and synced, its final name; the temporary file is gone when that is done."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Put verified bytes under their final name; the same bytes there already are left alone; raises StoreError."""
        ...

    def remove(self, name: str) -> None:
        """Take away what is not right or does not belong here, where something would be misled by it before it is replaced; raises StoreError."""
        ...

    def missing_revisions(self, epoch: BelievedEpoch) -> Sequence[int]:
        """Return the earlier revisions of the manifest that it keeps beside the newest, and lacks."""
        ...

    def lacks_tables_statement(self, epoch: BelievedEpoch) -> bool:
        """Whether the manifest names a statement of tables, and the target keeps such and lacks it; raises StoreError."""
        ...

    def missing_deltas(self, epoch: BelievedEpoch) -> Sequence[ManifestDelta]:
        """Return the deltas that the manifest lists, where the target keeps them, and of which it lacks something."""
        ...

    def publish(self, epoch: BelievedEpoch) -> None:
        """Put the manifest, once all else is there.

        Raises:
            ClaimedError: another writer has taken the place.
            ManifestError, StoreError: as `look`.
        """
        ...

    def point_at(self, epoch: BelievedEpoch, stays: Callable[[LatestPointer], bool], warn: Callable[[str], None]) -> None:
        """Move the latest pointer forward to an epoch that is whole here.

        Args:
            stays: tells whether the pointer that is there is to stay, for a place where it may go back.
            warn: told what was out of the ordinary.
        Raises:
            StoreError: it can't be written.
        """
        ...
