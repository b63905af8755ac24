"""Proofs out of published epochs: the right part is read, and it is verified before it is used."""

from __future__ import annotations

import dataclasses
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from pipelines.bucket.locate_epoch import locate_epoch
from pipelines.proving.prove_node import NodeProofRequest, prove_from_node
from pipelines.proving.prove_published import PARTS_OF_PREFIX_MAX, PublishedProofRequest, prove_from_published
from pipelines.proving.wanted_record import WantedRecord, wanted_record
from pipelines.stores.open_store import open_store
from pipelines.trust.policy import TrustPolicy
from pipelines.trust.signatures import TrustRule
from schemas.errors import EpochNotReadyError, IntegrityError, InvalidInputError, ManifestError, ObjectMismatchError, SignatureError
from schemas.ids import CryptoHash
from schemas.nearcore.shard_layout import ShardLayout
from schemas.published.proof import KeyClaim, PrefixClaim, ShardChoice
from schemas.published.public_key import PublicKey
from tests.support.native_wheel import needs_headers
from tests.support.nodes import localnet_home
from tests.support.productions import PAIRS, new_store_url, producer, small_shard
from tests.support.published import public_key, published_localnet, revise
from tests.support.stored_bytes import stored_bytes

INSECURE = TrustPolicy(insecure=True)
LOCALNET_LAYOUT = ShardLayout(kind="V2", version=0, shard_ids=(3, 1, 0, 2), boundary_accounts=("9f", "bb", "tt"))


@lru_cache
def _small() -> PublishedProofRequest:
    """Return a request on a shard of twelve parts, for its first record."""
    url = new_store_url()
    producer(small_shard(num_parts=12), url).publish()
    return _request(url, WantedRecord(None, PAIRS[0][0]))


def _request(url: str | Path, wanted: WantedRecord, policy: TrustPolicy = INSECURE) -> PublishedProofRequest:
    root, layout = locate_epoch(str(url))
    return PublishedProofRequest(root, layout, wanted, policy)


def _wanting(wanted: WantedRecord) -> PublishedProofRequest:
    return dataclasses.replace(_small(), wanted=wanted)


def test_one_part_is_read_for_a_key() -> None:
    """Every record, and a key beside it that is not there, is proven from one part; records of different parts from different ones."""
    read = set()
    for key, value in PAIRS:
        for wanted, expected in ((key, value), (key + b"\0", None)):
            published = prove_from_published(_wanting(WantedRecord(None, wanted)))
            assert published.verified.proof.claim == KeyClaim(wanted, expected)
            assert len(published.parts_read) == 1
            read |= set(published.parts_read)
    assert len(read) == 12


@pytest.mark.parametrize("prefix", [b"\x00account01", b"\x00account1", b"\x00", b"", b"\x00account9", b"\xff"])
def test_a_prefix_is_proven_from_the_parts_that_it_touches(prefix: bytes) -> None:
    """All keys with a prefix are proven, over as many parts as they lie in."""
    published = prove_from_published(_wanting(WantedRecord(None, prefix, is_prefix=True)))
    expected = tuple((key, value) for key, value in PAIRS if key.startswith(prefix))
    assert published.verified.proof.claim == PrefixClaim(prefix, expected)
    assert (len(published.parts_read) == 12) == (len(expected) == len(PAIRS))


def test_a_prefix_over_too_many_parts_is_refused() -> None:
    """More parts than are held at once are not read."""
    url = new_store_url()
    producer(small_shard(num_parts=PARTS_OF_PREFIX_MAX + 1), url).publish()
    with pytest.raises(InvalidInputError, match="longer prefix"):
        prove_from_published(_request(url, WantedRecord(None, b"", is_prefix=True)))


def test_a_changed_part_is_refused() -> None:
    """A part whose bytes are not the published ones proves nothing."""
    url = new_store_url()
    producer(small_shard(), url).publish()
    request = _request(url, WantedRecord(None, PAIRS[0][0]))
    (name,) = prove_from_published(request).parts_read
    store = open_store(url)
    data = stored_bytes(store, name)
    for damaged in (data[:-1], data + b"\0", data[:40] + bytes([data[40] ^ 1]) + data[41:]):
        store.put(name, damaged)
        with pytest.raises(ObjectMismatchError):
            prove_from_published(request)
    store.put(name, data)
    assert prove_from_published(request).parts_read == (name,)


def test_a_shard_that_is_not_published_is_named() -> None:
    """A shard id that the manifest does not list is refused with the list of those that it does."""
    with pytest.raises(InvalidInputError, match=r"s0\.v0"):
        prove_from_published(dataclasses.replace(_small(), shard_id=7))


def test_an_epoch_that_is_not_published_is_not_there(tmp_path: Path) -> None:
    """An empty bucket has no epoch."""
    with pytest.raises(EpochNotReadyError):
        _request(tmp_path, WantedRecord(None, b"any"))
    with pytest.raises(EpochNotReadyError):
        prove_from_published(dataclasses.replace(_small(), store_url=str(tmp_path)))


@needs_headers
@pytest.mark.parametrize("account_id", ["node0", "08fb740e3a2727888fcb3ae7a2a9a5c56a82bbf4dcb5098cf238d6c2d997e559", "nobody.near"])
def test_a_published_epoch_and_its_node_give_the_same_proof(account_id: str) -> None:
    """The proof from parts is that of the node, byte for byte."""
    wanted = wanted_record(account_id)
    published = prove_from_published(_request(published_localnet(), wanted)).verified.proof
    assert published.to_bytes() == prove_from_node(NodeProofRequest(localnet_home(), wanted)).proof.to_bytes()


# the shard of an account


def _localnet_copy(tmp_path: Path, shard_layout: ShardLayout | None) -> Path:
    """Return a copy of the published localnet with another shard layout in its manifest."""
    folder = tmp_path / "copy"
    shutil.copytree(published_localnet(), folder)
    revise(folder, lambda manifest: dataclasses.replace(manifest, shard_layout=shard_layout))
    return folder


def test_absence_is_proven_with_no_options() -> None:
    """The manifest's shard layout names the shard, and one part is read, as for an account that is there."""
    absent, there = (prove_from_published(_request(published_localnet(), wanted_record(name))) for name in ("nobody.near", "node0"))
    proof = absent.verified.proof
    assert proof.claim == KeyClaim(b"\0nobody.near", None)
    assert proof.shard_chosen_by is there.verified.proof.shard_chosen_by is ShardChoice.SHARD_LAYOUT
    own = prove_from_node(NodeProofRequest(localnet_home(), wanted_record("nobody.near"))).proof
    assert (proof.shard_uid, proof.nodes) == (own.shard_uid, own.nodes)
    assert (len(absent.parts_read), len(there.parts_read)) == (1, 1)
    assert absent.layout_signers == ()


def test_without_a_layout_the_shard_of_an_absent_account_must_be_told(tmp_path: Path) -> None:
    """Absence counts in the right shard alone, and an older manifest does not name it; what is there is found anyway."""
    folder = _localnet_copy(tmp_path, None)
    request = _request(folder, wanted_record("nobody.near"))
    with pytest.raises(InvalidInputError, match="the shard layout is not known") as caught:
        prove_from_published(request)
    assert "--shard-id" in caught.value.remedy
    assert "--shard-layout" in caught.value.remedy
    published = prove_from_published(dataclasses.replace(request, shard_layout=LOCALNET_LAYOUT))
    assert published.verified.proof.shard_chosen_by is ShardChoice.SHARD_LAYOUT
    assert published.layout_signers is None
    found = prove_from_published(_request(folder, wanted_record("node0"))).verified.proof
    assert found.shard_chosen_by is ShardChoice.ACCOUNT_RECORD
    own = prove_from_node(NodeProofRequest(localnet_home(), wanted_record("node0"))).proof
    assert (found.shard_uid, found.nodes, found.claim) == (own.shard_uid, own.nodes, own.claim)


def test_the_users_layout_counts_before_the_manifests(tmp_path: Path) -> None:
    """And so does a shard that the user names."""
    turned = dataclasses.replace(LOCALNET_LAYOUT, shard_ids=(2, 3, 1, 0))
    request = _request(_localnet_copy(tmp_path, turned), wanted_record("nobody.near"))
    choices: tuple[tuple[dict[str, Any], int], ...] = (({}, 1), ({"shard_layout": LOCALNET_LAYOUT}, 0), ({"shard_id": 3}, 3))
    for changes, shard_id in choices:
        assert prove_from_published(dataclasses.replace(request, **changes)).verified.proof.shard_uid.shard_id == shard_id


@needs_headers
def test_a_trusted_block_does_not_make_a_layout_true(tmp_path: Path) -> None:
    """It proves the state roots, so an account that a wrong layout hides is found in its shard; of none it can prove the layout right."""
    turned = dataclasses.replace(LOCALNET_LAYOUT, shard_ids=(2, 3, 1, 0))
    folder = _localnet_copy(tmp_path, turned)
    chunk = prove_from_published(_request(published_localnet(), wanted_record("node0"))).verified.chunk
    assert chunk is not None
    trusting = TrustPolicy(trusted_block=chunk.block.hash)
    with pytest.raises(ManifestError, match=r"has node0 in shard s1\.v0, and shard s0\.v0 has its record"):
        prove_from_published(_request(folder, wanted_record("node0"), trusting))
    # Nothing speaks against absence in the wrong shard of what is nowhere.
    absent = prove_from_published(_request(folder, wanted_record("nobody.near"), trusting))
    assert absent.verified.proof.shard_uid.shard_id == 1
    assert len(absent.parts_read) == 4
    # Where the account is in the layout's shard, the absence of another record of it needs no other shard.
    code = prove_from_published(_request(published_localnet(), wanted_record("node0", contract_code=True), trusting))
    assert {name.split("/")[3] for name in code.parts_read} == {"shard_id=0"}


def test_a_pinned_key_stands_behind_the_layout(tmp_path: Path) -> None:
    """One that has signed the manifest is enough, whatever the threshold is; its word is taken."""
    turned = dataclasses.replace(LOCALNET_LAYOUT, shard_ids=(2, 3, 1, 0))
    pinned = TrustPolicy(keys=TrustRule((PublicKey.parse(public_key()),), 1))
    published = prove_from_published(_request(_localnet_copy(tmp_path, turned), wanted_record("node0"), pinned))
    assert published.layout_signers == (public_key(),)
    assert published.verified.proof.claim == KeyClaim(b"\0node0", None)


# which manifest is trusted


@needs_headers
def test_a_trusted_block_ties_the_proof() -> None:
    """With the sync block's hash or its parent's the manifest, the state header and the proof are tied to it; with another, refused."""
    request = _request(published_localnet(), wanted_record("node0"))
    chunk = prove_from_published(request).verified.chunk
    assert chunk is not None
    assert chunk.child is not None
    for block in (chunk.block.hash, chunk.child.hash):
        tied = prove_from_published(dataclasses.replace(request, policy=TrustPolicy(trusted_block=block)))
        assert tied.verified.tied_to == (f"block {block}",)
    with pytest.raises(ManifestError):
        prove_from_published(dataclasses.replace(request, policy=TrustPolicy(trusted_block=CryptoHash(bytes(32)))))


def test_pinned_keys_must_have_signed() -> None:
    """With a pinned key the proof tells who signed; with a stranger's it is refused."""
    request = _request(published_localnet(), wanted_record("node0"))
    pinned = TrustPolicy(keys=TrustRule((PublicKey.parse(public_key()),), 1))
    assert prove_from_published(dataclasses.replace(request, policy=pinned)).signers == (public_key(),)
    strange = TrustPolicy(keys=TrustRule((PublicKey.parse(public_key("stranger")),), 1))
    with pytest.raises(SignatureError):
        prove_from_published(dataclasses.replace(request, policy=strange))


@needs_headers
def test_a_changed_state_header_is_refused(tmp_path: Path) -> None:
    """A state header that is not the published one ties nothing."""
    folder = tmp_path / "copy"
    shutil.copytree(published_localnet(), folder)
    request = _request(folder, wanted_record("node0"))
    shard_id = prove_from_published(request).verified.proof.shard_uid.shard_id
    header = folder / request.layout.state_header(shard_id)
    header.chmod(0o600)
    header.write_bytes(header.read_bytes()[:-1])
    with pytest.raises(IntegrityError):
        prove_from_published(dataclasses.replace(request, shard_id=shard_id))
