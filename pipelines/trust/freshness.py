"""Whether a manifest may still be followed, and whether it may follow what was accepted before. No I/O, and the clock is the caller's.

The memory is kept by signer: what a key has signed binds that key alone. What nobody signed is not remembered, since nothing says that it is so:
whoever serves an unsigned manifest could otherwise lock every honest publisher out, with a revision or an epoch height of his choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from schemas.errors import EquivocationError, InvalidInputError, ManifestError, ManifestExpiredError, RollbackError
from schemas.ids import CryptoHash
from schemas.json_document import FieldReader, decode_json, encode_json
from schemas.json_limits import JsonLimits
from schemas.published.manifest import Manifest
from schemas.published.object_layout import REVISION_MAX
from schemas.published.public_key import PublicKey

EPOCHS_REMEMBERED_MAX: Final = 256
"""Epochs of a signer whose revision is remembered; the oldest are forgotten first."""

SIGNERS_REMEMBERED_MAX: Final = 256
"""Signers that are remembered; the one that was accepted longest ago is forgotten first."""

MEMORY_BYTES_MAX: Final = 16 << 20
"""Largest memory that is read."""

# A signer is an object and a list, an epoch an object with four fields.
_LIMITS: Final = JsonLimits(
    MEMORY_BYTES_MAX, SIGNERS_REMEMBERED_MAX * (EPOCHS_REMEMBERED_MAX + 3), SIGNERS_REMEMBERED_MAX * (4 * EPOCHS_REMEMBERED_MAX + 3)
)

_FORMAT = "urn:statecast:accepted:v2"

_FORMAT_WITHOUT_SIGNERS = "urn:statecast:accepted:v1"


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
    """What was accepted before of one chain, by signer: the memory that makes a rollback visible."""

    chain_id: str
    by_signer: Mapping[PublicKey, Mapping[CryptoHash, AcceptedRevision]] = field(default_factory=dict)
    """By signer and epoch id."""
    is_older_format: bool = False
    """What was read did not say who had signed. It counts for nothing, and the memory starts again."""

    def newest_epoch_height(self, signers: Iterable[PublicKey]) -> int | None:
        """Height of the newest epoch that any of these signers is remembered with; None where there is none."""
        heights = (accepted.epoch_height for signer in signers for accepted in self.by_signer.get(signer, {}).values())
        return max(heights, default=None)

    def check_not_behind(self, signer: PublicKey, manifest: Manifest, where: str, *, must_be_newest: bool) -> None:
        """Refuse a manifest that goes back behind one that was accepted of the same signer.

        Args:
            signer: a pinned key whose signature on the manifest holds.
            must_be_newest: the latest epoch was asked for, not this one by name: an older one than the signer's newest is refused.
        Raises:
            RollbackError: an older epoch, or a lower revision of this one.
        """
        newest = self.newest_epoch_height([signer])
        if must_be_newest and newest is not None and manifest.epoch_height < newest:
            raise RollbackError(
                problem=f"epoch {newest} was accepted before, the latest that is offered is {manifest.epoch_height}, signed by {signer}",
                where=where,
                remedy="Somebody serves an old pointer; name the epoch with --epoch to fetch it all the same.",
            )
        seen = self.by_signer.get(signer, {}).get(manifest.epoch_id)
        if seen is not None and manifest.revision < seen.revision:
            raise RollbackError(
                problem=f"revision {seen.revision} was seen before, this is {manifest.revision}, signed by {signer}",
                where=where,
                remedy="Somebody serves an old manifest.",
            )

    def check_same(self, signer: PublicKey, manifest: Manifest, payload_sha256: str, where: str) -> None:
        """Refuse another payload under the revision that was accepted of the same signer: it has signed both.

        Raises:
            EquivocationError: it is one.
        """
        seen = self.by_signer.get(signer, {}).get(manifest.epoch_id)
        if seen is not None and manifest.revision == seen.revision and payload_sha256 != seen.payload_sha256:
            raise two_of_one_revision(signer, seen.revision, where)

    def with_accepted(self, signers: Iterable[PublicKey], manifest: Manifest, payload_sha256: str) -> AcceptedManifests:
        """Return the memory with one more manifest, for each of its signers that was checked; the same where there are none."""
        entry = AcceptedRevision(manifest.epoch_height, manifest.revision, payload_sha256)
        remembered = dict(self.by_signer)
        for signer in signers:
            entries = {**remembered.pop(signer, {}), manifest.epoch_id: entry}
            kept = sorted(entries.items(), key=lambda item: item[1].epoch_height)[-EPOCHS_REMEMBERED_MAX:]
            remembered[signer] = dict(kept)
        return AcceptedManifests(self.chain_id, dict(list(remembered.items())[-SIGNERS_REMEMBERED_MAX:]))

    def to_bytes(self) -> bytes:
        """Return the memory as canonical JSON."""
        signers: list[dict[str, Any]] = [
            {
                "signer": str(signer),
                "epochs": [
                    {
                        "epoch_id": str(epoch_id),
                        "epoch_height": accepted.epoch_height,
                        "revision": accepted.revision,
                        "manifest_sha256": accepted.payload_sha256,
                    }
                    for epoch_id, accepted in entries.items()
                ],
            }
            for signer, entries in self.by_signer.items()
        ]
        return encode_json({"format": _FORMAT, "chain_id": self.chain_id, "signers": signers})

    @classmethod
    def parse(cls, data: bytes, chain_id: str, where: str) -> AcceptedManifests:
        """Parse what `to_bytes` made, or an older version, which is believed for nothing.

        Raises:
            ManifestError: it is damaged, or another chain's.
        """
        reader = FieldReader(decode_json(data, _LIMITS, where), where)
        if reader.text("chain_id", 64) != chain_id:
            raise ManifestError(problem=f"this is the memory of another chain than {chain_id}", where=where)
        if reader.text("format", 100) == _FORMAT_WITHOUT_SIGNERS:
            return cls(chain_id, is_older_format=True)
        reader.literal("format", _FORMAT)
        return cls(
            chain_id,
            {
                _signer(signer): {
                    entry.hash("epoch_id"): AcceptedRevision(
                        entry.number("epoch_height", 0, 2**64 - 1),
                        entry.number("revision", 1, REVISION_MAX),
                        entry.sha256("manifest_sha256"),
                    )
                    for entry in signer.inners("epochs", EPOCHS_REMEMBERED_MAX)
                }
                for signer in reader.inners("signers", SIGNERS_REMEMBERED_MAX)
            },
        )


def _signer(reader: FieldReader) -> PublicKey:
    try:
        return PublicKey.parse(reader.text("signer", 200))
    except InvalidInputError as error:
        reader.fail(f"field signer: {error.problem}")


def two_of_one_revision(signer: PublicKey, revision: int, where: str) -> EquivocationError:
    """Return the error that says who equivocates."""
    return EquivocationError(
        problem=f"{signer} has signed two different manifests of revision {revision}",
        where=where,
        remedy="That key lies or is stolen, or two producers use it at once: find out which before it is trusted any further.",
    )
