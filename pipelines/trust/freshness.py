"""Whether a manifest may still be followed, and whether it may follow another one. No I/O, and the clock is the caller's."""

from __future__ import annotations

from datetime import datetime

from schemas.errors import ManifestError
from schemas.manifest import Manifest


def check_not_expired(manifest: Manifest, now: datetime, where: str) -> None:
    """Refuse a manifest whose time is over.

    Args:
        now: with a time zone.
    Raises:
        ManifestError: it has expired.
    """
    if manifest.expires is not None and now >= manifest.expires:
        raise ManifestError(
            problem=f"the manifest expired at {manifest.expires:%Y-%m-%d %H:%M} UTC",
            where=where,
            remedy="Fetch its newest revision; a mirror may lag behind.",
        )


def check_revision(manifest: Manifest, seen: Manifest, where: str) -> None:
    """Refuse a manifest that does not follow one that was seen of the same epoch.

    Raises:
        ManifestError: a lower revision (rollback), another content under the same revision, or another epoch.
    """
    if (manifest.chain_id, manifest.epoch_id) != (seen.chain_id, seen.epoch_id):
        raise ManifestError(problem="the manifest is of another epoch than the one seen before", where=where)
    if manifest.revision < seen.revision:
        raise ManifestError(
            problem=f"revision {seen.revision} was seen before, this is {manifest.revision}",
            where=where,
            remedy="Somebody serves an old manifest.",
        )
    if manifest.revision == seen.revision and manifest != seen:
        raise ManifestError(
            problem=f"two different manifests have revision {seen.revision}",
            where=where,
            remedy="The publisher equivocates, or two publish at once.",
        )
