"""Whether a manifest may still be followed, and whether it may follow what was accepted before. No I/O, and the clock is the caller's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from schemas.errors import EquivocationError, ManifestError, ManifestExpiredError, RollbackError
from schemas.ids import CryptoHash
from schemas.json_document import FieldReader, decode_json, encode_json
from schemas.published.manifest import Manifest
from schemas.published.object_layout import REVISION_MAX

EPOCHS_REMEMBERED_MAX: Final = 256
"""Epochs whose revision is remembered; the oldest are forgotten first."""

MEMORY_BYTES_MAX: Final = 1 << 20
"""Largest memory that is read."""

_FORMAT = "urn:statecast:accepted:v1"


def check_not_expired(manifest: Manifest, now: datetime, where: str) -> None:
    """Refuse a manifest whose time is over.

    Args:
        now: with a time zone.
    Raises:
        ManifestExpiredError: it has expired.
    """
    if manifest.expires is not None and now >= manifest.expires:
        raise ManifestExpiredError(
            problem=f"the manifest expired at {manifest.expires:%Y-%m-%d %H:%M} UTC",
            where=where,
            remedy="Fetch its newest revision; a mirror may lag behind.",
        )


@dataclass(frozen=True, slots=True)
class AcceptedRevision:
    """A manifest that was accepted."""

    epoch_height: int
    revision: int
    payload_sha256: str
    """Of the manifest's payload, in hexadecimal."""


@dataclass(frozen=True, slots=True)
class AcceptedManifests:
    """What was accepted before of one chain: the memory that makes a rollback visible."""

    chain_id: str
    by_epoch_id: Mapping[CryptoHash, AcceptedRevision] = field(default_factory=dict)

    @property
    def newest_epoch_height(self) -> int | None:
        """Height of the newest epoch that was accepted; None before the first."""
        return max((accepted.epoch_height for accepted in self.by_epoch_id.values()), default=None)

    def check(self, manifest: Manifest, payload_sha256: str, where: str, *, must_be_newest: bool) -> None:
        """Refuse a manifest that goes back behind one that was accepted.

        Args:
            must_be_newest: the latest epoch was asked for, not this one by name: an older one than the newest accepted is refused.
        Raises:
            RollbackError: an older epoch, or a lower revision of this one.
            EquivocationError: another payload under the revision that was accepted.
            ManifestError: another chain.
        """
        if manifest.chain_id != self.chain_id:
            raise ManifestError(problem=f"the manifest is of chain {manifest.chain_id}, not {self.chain_id}", where=where)
        newest = self.newest_epoch_height
        if must_be_newest and newest is not None and manifest.epoch_height < newest:
            raise RollbackError(
                problem=f"epoch {newest} was accepted before, the latest that is offered is {manifest.epoch_height}",
                where=where,
                remedy="Somebody serves an old pointer; name the epoch with --epoch to fetch it all the same.",
            )
        seen = self.by_epoch_id.get(manifest.epoch_id)
        if seen is None:
            return
        if manifest.revision < seen.revision:
            raise _rolled_back(manifest.revision, seen.revision, where)
        if manifest.revision == seen.revision and payload_sha256 != seen.payload_sha256:
            raise _equivocates(seen.revision, where)

    def with_accepted(self, manifest: Manifest, payload_sha256: str) -> AcceptedManifests:
        """Return the memory with one more manifest, which was checked."""
        entry = AcceptedRevision(manifest.epoch_height, manifest.revision, payload_sha256)
        entries = {**self.by_epoch_id, manifest.epoch_id: entry}
        kept = sorted(entries.items(), key=lambda item: item[1].epoch_height)[-EPOCHS_REMEMBERED_MAX:]
        return AcceptedManifests(self.chain_id, dict(kept))

    def to_bytes(self) -> bytes:
        """Return the memory as canonical JSON."""
        epochs: list[dict[str, Any]] = [
            {
                "epoch_id": str(epoch_id),
                "epoch_height": accepted.epoch_height,
                "revision": accepted.revision,
                "manifest_sha256": accepted.payload_sha256,
            }
            for epoch_id, accepted in self.by_epoch_id.items()
        ]
        return encode_json({"format": _FORMAT, "chain_id": self.chain_id, "epochs": epochs})

    @classmethod
    def parse(cls, data: bytes, where: str) -> AcceptedManifests:
        """Parse what `to_bytes` made.

        Raises:
            ManifestError: it is damaged.
        """
        reader = FieldReader(decode_json(data, MEMORY_BYTES_MAX, where), where)
        reader.literal("format", _FORMAT)
        entries = {
            entry.hash("epoch_id"): AcceptedRevision(
                entry.number("epoch_height", 0, 2**64 - 1), entry.number("revision", 1, REVISION_MAX), entry.sha256("manifest_sha256")
            )
            for entry in reader.inners("epochs", EPOCHS_REMEMBERED_MAX)
        }
        return cls(reader.text("chain_id", 64), entries)


def _rolled_back(offered: int, seen: int, where: str) -> RollbackError:
    return RollbackError(
        problem=f"revision {seen} was seen before, this is {offered}", where=where, remedy="Somebody serves an old manifest."
    )


def _equivocates(revision: int, where: str) -> EquivocationError:
    return EquivocationError(
        problem=f"two different manifests have revision {revision}",
        where=where,
        remedy="The publisher equivocates, or two publish at once.",
    )
