"""Published epochs in Python: opened under a trust, proven, fetched; proofs verified offline."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import statecast
from schemas.errors import IntegrityError, InvalidInputError, ManifestError
from tests.support.native_wheel import needs_headers
from tests.support.published import public_key, published_localnet

TRUST = statecast.Trust(anybody=True)


def test_an_epoch_says_what_it_is() -> None:
    """Its manifest, believed by the publisher's key."""
    epoch = statecast.open_epoch(str(published_localnet()), trust=statecast.Trust(keys=[public_key()]))
    assert (epoch.chain_id, epoch.epoch_height, epoch.revision, epoch.signers) == ("test-chain-klplt", 6, 1, (public_key(),))
    assert sorted(epoch.state_roots) == [0, 1, 2, 3]
    assert statecast.open_epoch(epoch.url, trust=TRUST).state_roots == epoch.state_roots


def test_a_manifest_without_a_pinned_signature_is_refused() -> None:
    """Before anything else is read."""
    with pytest.raises(ManifestError):
        statecast.open_epoch(str(published_localnet()), trust=statecast.Trust(keys=[public_key("another")]))


def test_a_proof_is_verified_elsewhere(tmp_path: Path) -> None:
    """As bytes and as a file; one changed byte is found."""
    epoch = statecast.open_epoch(str(published_localnet()), trust=TRUST)
    proof = epoch.prove("near").proof
    data = proof.to_bytes()
    (tmp_path / "proof.json").write_bytes(data)
    for form in (data, tmp_path / "proof.json", str(tmp_path / "proof.json")):
        verified = statecast.verify_proof(form, state_root=str(proof.state_root))
        assert verified.tied_to == (f"state root {proof.state_root}",)
    assert statecast.verify_proof(data).tied_to == ()
    with pytest.raises(IntegrityError):
        statecast.verify_proof(data.replace(b"a", b"b", 1))
    with pytest.raises(IntegrityError, match="not 1111"):
        statecast.verify_proof(data, state_root="1" * 32)
    with pytest.raises(InvalidInputError, match="can't be read"):
        statecast.verify_proof(tmp_path / "nowhere.json")


@needs_headers
def test_a_block_ties_the_state_without_any_key() -> None:
    """From the sync block's hash down to the record."""
    sync_hash = statecast.open_epoch(str(published_localnet()), trust=TRUST).sync_hash
    tied = statecast.open_epoch(str(published_localnet()), trust=statecast.Trust(block=sync_hash)).prove("near")
    assert tied.tied_to == (f"block {sync_hash}",)


def test_a_shard_is_fetched_and_a_rerun_keeps_it(tmp_path: Path) -> None:
    """Nothing else comes along."""
    epoch = statecast.open_epoch(str(published_localnet()), trust=TRUST)
    first = epoch.fetch(tmp_path, shard_ids=[1])
    (shard,) = first.shards
    assert (len(shard.here), len(shard.missing)) == (0, 1)
    (again,) = epoch.fetch(tmp_path, shard_ids=[1]).shards
    assert (len(again.here), len(again.missing)) == (1, 0)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "nothing says whom"),
        ({"anybody": True, "keys": ["x"]}, "excludes"),
        ({"keys": ["no key"]}, "key"),
        ({"block": "no hash"}, "base58"),
    ],
)
def test_a_trust_is_said_right_or_refused(given: dict[str, object], problem: str) -> None:
    """When it is made, not when it is used."""
    with pytest.raises(InvalidInputError, match=problem):
        statecast.Trust(**given)  # type: ignore[arg-type]


def test_the_command_is_a_module_too() -> None:
    """For an environment whose scripts are on no path."""
    done = subprocess.run([sys.executable, "-m", "statecast", "--version"], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["statecast", statecast.__version__]
