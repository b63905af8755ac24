"""Expiry, rollback and the memory of what was accepted."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from pipelines.trust.freshness import EPOCHS_REMEMBERED_MAX, MEMORY_BYTES_MAX, SIGNERS_REMEMBERED_MAX, AcceptedManifests, check_not_expired
from schemas.errors import EquivocationError, ManifestError, ManifestExpiredError, RollbackError
from schemas.ids import CryptoHash
from schemas.published.manifest import Manifest
from schemas.published.public_key import PublicKey
from tests.support.published_values import digest, make_manifest

MANIFEST = make_manifest()
KEY, OTHER = PublicKey(b"\1" * 32), PublicKey(b"\2" * 32)
MEMORY = AcceptedManifests(MANIFEST.chain_id).with_accepted([KEY], replace(MANIFEST, revision=3), digest("three"))


def test_a_manifest_expires_at_its_second() -> None:
    """Not one before."""
    assert MANIFEST.expires is not None
    check_not_expired(MANIFEST, MANIFEST.expires - timedelta(seconds=1), "test")
    with pytest.raises(ManifestExpiredError):
        check_not_expired(MANIFEST, MANIFEST.expires, "test")


def test_the_memory_refuses_a_lower_revision_and_another_payload_of_the_same() -> None:
    """And takes the same again, and the next; what another key has signed is another matter."""

    def check(revision: int, payload: str, key: PublicKey = KEY) -> None:
        manifest = replace(MANIFEST, revision=revision)
        MEMORY.check_not_behind(key, manifest, "test", must_be_newest=True)
        MEMORY.check_same(key, manifest, digest(payload), "test")

    check(3, "three")
    check(4, "four")
    with pytest.raises(RollbackError):
        check(2, "two")
    with pytest.raises(EquivocationError, match=str(KEY)):
        check(3, "another three")
    check(2, "two", OTHER)
    check(3, "another three", OTHER)


def test_the_latest_epoch_does_not_go_back() -> None:
    """But an older one can be asked for by name, and of another key."""
    older: Manifest = replace(MANIFEST, epoch_height=MANIFEST.epoch_height - 1, epoch_id=CryptoHash(b"\4" * 32))
    with pytest.raises(RollbackError, match="--epoch"):
        MEMORY.check_not_behind(KEY, older, "test", must_be_newest=True)
    MEMORY.check_not_behind(KEY, older, "test", must_be_newest=False)
    MEMORY.check_not_behind(OTHER, older, "test", must_be_newest=True)
    assert MEMORY.with_accepted([KEY], older, digest("older")).newest_epoch_height([KEY]) == MANIFEST.epoch_height


def test_what_nobody_signed_is_not_remembered() -> None:
    """Whatever it says."""
    assert MEMORY.with_accepted([], replace(MANIFEST, revision=999_999, epoch_height=2**64 - 1), digest("x")) == MEMORY


def test_the_memory_survives_being_written() -> None:
    """And what is damaged, or another chain's, is refused."""
    memory = MEMORY.with_accepted([OTHER, KEY], replace(MANIFEST, revision=5), digest("five"))
    assert AcceptedManifests.parse(memory.to_bytes(), MANIFEST.chain_id, "test") == memory
    for damaged in (MEMORY.to_bytes()[:-5], MEMORY.to_bytes().replace(b"ed25519:", b"ed25519;")):
        with pytest.raises(ManifestError):
            AcceptedManifests.parse(damaged, MANIFEST.chain_id, "test")
    with pytest.raises(ManifestError, match="another chain"):
        AcceptedManifests.parse(MEMORY.to_bytes(), "mainnet", "test")


def test_the_oldest_epochs_and_signers_are_forgotten_first() -> None:
    """The memory is bounded, each signer's by itself."""
    memory = MEMORY
    for height in range(EPOCHS_REMEMBERED_MAX + 5):
        epoch_id = CryptoHash(height.to_bytes(32, "big"))
        memory = memory.with_accepted([OTHER], replace(MANIFEST, epoch_height=height, epoch_id=epoch_id), digest(str(height)))
    assert len(memory.by_signer[OTHER]) == EPOCHS_REMEMBERED_MAX
    assert min(accepted.epoch_height for accepted in memory.by_signer[OTHER].values()) == 5
    assert memory.by_signer[KEY] == MEMORY.by_signer[KEY]
    signers = [PublicKey(number.to_bytes(32, "little")) for number in range(SIGNERS_REMEMBERED_MAX + 5)]
    memory = AcceptedManifests(MANIFEST.chain_id).with_accepted(signers, MANIFEST, digest("x"))
    assert list(memory.by_signer) == signers[5:]
    assert len(memory.to_bytes()) * EPOCHS_REMEMBERED_MAX < MEMORY_BYTES_MAX
