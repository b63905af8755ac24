"""Expiry, rollback and the memory of what was accepted."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from pipelines.trust.freshness import EPOCHS_REMEMBERED_MAX, AcceptedManifests, check_not_expired
from schemas.errors import EquivocationError, ManifestError, ManifestExpiredError, RollbackError
from schemas.ids import CryptoHash
from schemas.published.manifest import Manifest
from tests.support.published_values import digest, make_manifest

MANIFEST = make_manifest()
MEMORY = AcceptedManifests(MANIFEST.chain_id).with_accepted(replace(MANIFEST, revision=3), digest("three"))


def test_a_manifest_expires_at_its_second() -> None:
    """Not one before."""
    assert MANIFEST.expires is not None
    check_not_expired(MANIFEST, MANIFEST.expires - timedelta(seconds=1), "test")
    with pytest.raises(ManifestExpiredError):
        check_not_expired(MANIFEST, MANIFEST.expires, "test")


def test_the_memory_refuses_a_lower_revision_and_another_payload_of_the_same() -> None:
    """And takes the same again, and the next."""

    def check(revision: int, payload: str) -> None:
        MEMORY.check(replace(MANIFEST, revision=revision), digest(payload), "test", must_be_newest=True)

    check(3, "three")
    check(4, "four")
    with pytest.raises(RollbackError):
        check(2, "two")
    with pytest.raises(EquivocationError):
        check(3, "another three")


def test_the_latest_epoch_does_not_go_back() -> None:
    """But an older one can be asked for by name."""
    older: Manifest = replace(MANIFEST, epoch_height=MANIFEST.epoch_height - 1, epoch_id=CryptoHash(b"\4" * 32))
    with pytest.raises(RollbackError, match="--epoch"):
        MEMORY.check(older, digest("older"), "test", must_be_newest=True)
    MEMORY.check(older, digest("older"), "test", must_be_newest=False)
    assert MEMORY.with_accepted(older, digest("older")).newest_epoch_height == MANIFEST.epoch_height


def test_the_memory_survives_being_written() -> None:
    """And what is damaged is refused."""
    assert AcceptedManifests.parse(MEMORY.to_bytes(), "test") == MEMORY
    with pytest.raises(ManifestError):
        AcceptedManifests.parse(MEMORY.to_bytes()[:-5], "test")


def test_the_oldest_epochs_are_forgotten_first() -> None:
    """The memory is bounded."""
    memory = AcceptedManifests(MANIFEST.chain_id)
    for height in range(EPOCHS_REMEMBERED_MAX + 5):
        epoch_id = CryptoHash(height.to_bytes(32, "big"))
        memory = memory.with_accepted(replace(MANIFEST, epoch_height=height, epoch_id=epoch_id), digest(str(height)))
    assert len(memory.by_epoch_id) == EPOCHS_REMEMBERED_MAX
    assert min(accepted.epoch_height for accepted in memory.by_epoch_id.values()) == 5


def test_another_chain_is_refused() -> None:
    """Each chain has its own memory."""
    with pytest.raises(ManifestError, match="chain"):
        MEMORY.check(replace(MANIFEST, chain_id="mainnet"), digest("x"), "test", must_be_newest=True)
