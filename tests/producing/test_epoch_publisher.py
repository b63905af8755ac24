"""Statements, manifests and pointers: what several producers say at once, and what they find when they come again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from pipelines.bucket.published_epoch import StoredManifest, read_manifest, read_manifest_revision, read_statement
from pipelines.dataset.dataset_header import VerifyStateHeader
from pipelines.producing.build_shard import BuiltShard
from pipelines.producing.publish import shard_publisher
from pipelines.producing.publish.signing import sign_payload
from pipelines.stores import compare_and_swap
from pipelines.stores.compare_and_swap import SWAP_ATTEMPTS_MAX
from pipelines.stores.open_store import open_store
from pipelines.stores.store import Store
from pipelines.trust.signatures import TrustRule, verified_signers
from schemas.errors import IntegrityError, InvalidInputError, ManifestError, ObjectExistsError
from schemas.ids import CryptoHash
from schemas.json_document import encode_json
from schemas.nearcore.shard_layout import ShardLayout
from schemas.nearcore.state_header import HeaderOrigin
from schemas.published.dsse import Envelope
from schemas.published.latest_pointer import LatestPointer
from schemas.published.object_layout import EpochLayout, latest_name
from schemas.published.shard_statement import ShardStatement
from tests.support.dumped_headers import dumped_header
from tests.support.productions import Producer, context, fitting_header, inject, meanwhile, new_store_url, producer, signer, small_shard
from tests.support.stored_bytes import stored_bytes


@pytest.fixture(scope="module")
def built() -> BuiltShard:
    """A small shard, built once."""
    return small_shard()


@pytest.fixture
def store_url() -> str:
    """An empty store."""
    return new_store_url()


@pytest.fixture
def store(store_url: str) -> Store:
    """The store itself, past every schedule of faults."""
    return open_store(store_url)


@pytest.fixture
def layout(built: BuiltShard) -> EpochLayout:
    """The names of the epoch's objects."""
    return EpochLayout.of(context(built))


def manifest_of(store: Store, layout: EpochLayout) -> StoredManifest:
    """Return the manifest that is there."""
    stored = read_manifest(store, layout)
    assert stored is not None
    return stored


def statement_of(store: Store, layout: EpochLayout) -> tuple[ShardStatement, Envelope]:
    """Return the statement that is there."""
    found = read_statement(store, layout, 0)
    assert found is not None
    return found


def signers_of(envelope: Envelope, *names: str) -> set[str]:
    """Return which of these keys have signed an envelope."""
    rule = TrustRule(tuple(signer(name).public_key for name in names))
    found = verified_signers(envelope, rule.keys)
    return {name for name in names if signer(name).public_key in found}


def names_below(store: Store, folder: str) -> list[str]:
    """Return the last level of all names in a folder."""
    return [info.name.rpartition("/")[2] for info in store.list(folder)]


# Statements


def test_two_producers_sign_one_statement(built: BuiltShard, store_url: str, store: Store, layout: EpochLayout) -> None:
    """Their payloads are byte-identical, so both signatures stand under one."""
    for name in ("first", "second"):
        producer(built, store_url, name).put_shard()
    assert signers_of(statement_of(store, layout)[1], "first", "second", "third") == {"first", "second"}


def test_no_signature_is_lost_between_two_producers_at_once(
    built: BuiltShard, store_url: str, store: Store, layout: EpochLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second writes its statement between the first one's look and its put."""
    first, second = producer(built, store_url, "first"), producer(built, store_url, "second")
    inject(monkeypatch, store_url, meanwhile("put", "statements/", second.put_shard))
    first.put_shard()
    assert signers_of(statement_of(store, layout)[1], "first", "second") == {"first", "second"}


def test_a_statement_that_never_stands_still_is_given_up(
    built: BuiltShard, store_url: str, store: Store, layout: EpochLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a bounded number of attempts."""
    versions: list[int] = []

    def spoil() -> None:
        versions.append(1)
        store.put(layout.shard_statement(0), b"{" + b" " * len(versions))

    producing = producer(built, store_url)
    spoil()
    inject(monkeypatch, store_url, meanwhile("swap", "statements/", spoil, times=100))
    monkeypatch.setattr(compare_and_swap, "WAIT_MAX_S", 0)
    with pytest.raises(ObjectExistsError, match=f"in each of {SWAP_ATTEMPTS_MAX} attempts"):
        producing.put_shard()
    assert len(versions) == 1 + SWAP_ATTEMPTS_MAX


def contradicting(producing: Producer) -> None:
    """Publish a statement that says another memory usage than everybody's."""
    shard = producing.produced()
    other = replace(shard, state=replace(shard.state, memory_usage=shard.state.memory_usage + 1))
    producing.publisher.put_shard(context(producing.built), other)


def test_a_contradicting_statement_is_kept_as_evidence(built: BuiltShard, store_url: str, store: Store, layout: EpochLayout) -> None:
    """The envelope that was in place lies under its payload's digest, with its signature."""
    contradicting(producer(built, store_url, "second"))
    wrong = statement_of(store, layout)[1]
    producer(built, store_url, "first").put_shard()
    kept = layout.evidence(0, bytes.fromhex(wrong.payload_sha256))
    assert stored_bytes(store, kept) == wrong.to_bytes()
    right, envelope = statement_of(store, layout)
    assert right.memory_usage == built.planned.memory_usage
    assert signers_of(envelope, "first", "second") == {"first"}


def test_a_statement_without_a_header_contradicts_no_other(built: BuiltShard, store_url: str, store: Store, layout: EpochLayout) -> None:
    """A statement with a header says more; one without is replaced and is no evidence."""
    producer(built, store_url, "second").put_shard()
    producer(built, store_url, "first", fitting_header(built)).put_shard()
    assert statement_of(store, layout)[0].header_sha256 is not None
    assert not list(store.list(f"{layout.folder}/evidence"))


def test_a_source_without_headers_keeps_the_published_one(built: BuiltShard, store_url: str, store: Store, layout: EpochLayout) -> None:
    """What is published does not get poorer where the run can verify it: statement, header and manifest stay, and both have signed."""
    header = fitting_header(built)
    producer(built, store_url, "first", header).publish()
    verified: list[bytes] = []
    replace(producer(built, store_url, "second"), verify_header=verified.append).publish()
    assert verified == [header]
    statement, envelope = statement_of(store, layout)
    assert statement.header_sha256 == hashlib.sha256(header).hexdigest()
    assert signers_of(envelope, "first", "second") == {"first", "second"}
    stored = manifest_of(store, layout)
    assert stored.manifest.revision == 1
    assert stored.manifest.shards[0].header is not None
    assert stored_bytes(store, layout.state_header(0)) == header


def test_a_header_that_our_own_key_stands_behind_is_kept(built: BuiltShard, store_url: str, store: Store, layout: EpochLayout) -> None:
    """A rerun without header and without anything that verifies keeps what the key has signed before."""
    header = fitting_header(built)
    producer(built, store_url, "first", header).publish()
    before = stored_bytes(store, layout.manifest)
    assert producer(built, store_url, "first").put_shard().header_origin is HeaderOrigin.KEPT
    producer(built, store_url, "first").publish()
    assert (stored_bytes(store, layout.manifest), stored_bytes(store, layout.state_header(0))) == (before, header)


def refusing(header: bytes) -> None:
    """Find every header wrong."""
    raise IntegrityError(problem="a path leads elsewhere")


@pytest.mark.parametrize("theirs", ["second", None])
@pytest.mark.parametrize("verify", [None, refusing])
def test_an_unverified_header_is_not_signed(
    built: BuiltShard, store_url: str, store: Store, layout: EpochLayout, theirs: str | None, verify: VerifyStateHeader | None
) -> None:
    """A statement of another key, or of none, is no reason to believe it: ours names no header, and the manifest says why."""
    header = fitting_header(built)
    producer(built, store_url, theirs, header).put_shard()
    replace(producer(built, store_url, "first"), verify_header=verify).publish()
    statement, envelope = statement_of(store, layout)
    assert statement.header_sha256 is None
    assert signers_of(envelope, "first", "second") == {"first"}
    manifest = manifest_of(store, layout).manifest
    assert manifest.shards[0].header is None
    (reason,) = [found.reason for found in manifest.missing if found.kind == "state_header"]
    assert "the one in place is not kept: " in reason
    assert ("a path leads elsewhere" in reason) == (verify is not None)
    # The object stays: a producer that has verified it may be about to list it.
    assert stored_bytes(store, layout.state_header(0)) == header


def test_our_key_on_another_header_does_not_vouch(built: BuiltShard, store_url: str, store: Store, layout: EpochLayout) -> None:
    """The signature has to be on the digest of what lies there, and has to hold."""
    producer(built, store_url, "first", fitting_header(built)).put_shard()
    envelope = statement_of(store, layout)[1]
    changed = fitting_header(built, b"another")
    store.put(layout.state_header(0), changed)
    assert producer(built, store_url, "first").put_shard().header_origin is None
    forged = replace(statement_of(store, layout)[0], header_sha256=hashlib.sha256(changed).hexdigest())
    store.put(layout.shard_statement(0), Envelope(forged.to_payload(), envelope.payload_type, envelope.signatures).to_bytes())
    assert producer(built, store_url, "first").put_shard().header_origin is None


def test_a_listed_header_that_can_not_be_stood_behind_stops_the_run(
    built: BuiltShard, store_url: str, store: Store, layout: EpochLayout
) -> None:
    """Its readers know it: no statement without it is published, and nothing in the store changes."""
    producer(built, store_url, "second", fitting_header(built)).publish()
    before = {info.name: stored_bytes(store, info.name) for info in store.list("")}
    with pytest.raises(ManifestError, match="can't stand behind"):
        producer(built, store_url, "first").put_shard()
    assert {info.name: stored_bytes(store, info.name) for info in store.list("")} == before


def test_a_header_that_is_listed_meanwhile_stays_listed(built: BuiltShard, store_url: str, store: Store, layout: EpochLayout) -> None:
    """Another producer lists it between our statement and our manifest: theirs stays."""
    shard = producer(built, store_url, "first").put_shard()
    producer(built, store_url, "second", fitting_header(built)).publish()
    with pytest.raises(ManifestError, match="can't stand behind"):
        producer(built, store_url, "first").publisher.finish(context(built), [shard], [0])
    assert manifest_of(store, layout).manifest.shards[0].header is not None


def test_a_header_of_another_state_is_not_published(built: BuiltShard, store_url: str, store: Store, layout: EpochLayout) -> None:
    """A header ends in the root's node and memory usage; one that does not is left out, and the manifest says why."""
    producer(built, store_url, state_header=b"a header of something else").publish()
    assert store.info(layout.state_header(0)) is None
    reasons = [found.reason for found in manifest_of(store, layout).manifest.missing if found.kind == "state_header"]
    assert reasons == ["the source's own does not fit the state root or the blocks"]


def test_a_damaged_statement_is_made_again(built: BuiltShard, store_url: str, store: Store, layout: EpochLayout) -> None:
    """It says nothing, so nothing of it is kept."""
    store.put(layout.shard_statement(0), b"{")
    producer(built, store_url).put_shard()
    assert statement_of(store, layout)[0].state_root == built.state_root
    assert not list(store.list(f"{layout.folder}/evidence"))


def test_a_statement_of_another_type_is_made_again_and_that_is_said(
    built: BuiltShard, store_url: str, store: Store, layout: EpochLayout
) -> None:
    """Over the very payload even: no reader takes it, and it ends no run."""
    producer(built, store_url, "second").put_shard()
    foreign = replace(statement_of(store, layout)[1], payload_type="text/plain")
    store.put(layout.shard_statement(0), foreign.to_bytes())
    with pytest.raises(ManifestError, match="text/plain"):
        statement_of(store, layout)
    published = producer(built, store_url).publish()
    assert any("the statement in place of shard 0 was replaced: the payload's type is 'text/plain'" in note for note in published.notes)
    assert signers_of(statement_of(store, layout)[1], "first", "second") == {"first"}


def test_a_manifest_of_another_type_is_named_before_anything_is_built(
    built: BuiltShard, store_url: str, store: Store, layout: EpochLayout
) -> None:
    """It is that object's fault, and the line says which and what to do."""
    producer(built, store_url).publish()
    foreign = replace(manifest_of(store, layout).envelope, payload_type="text/plain")
    store.put(layout.manifest, foreign.to_bytes())
    with pytest.raises(ManifestError, match=r"text/plain.*manifest\.json.*Delete the object"):
        producer(built, store_url).publisher.whole_manifest(context(built), None)


# The manifest


def test_two_producers_sign_one_manifest(built: BuiltShard, store_url: str, store: Store, layout: EpochLayout) -> None:
    """The second has nothing new to say, so it signs what is there: one revision, two signatures."""
    assert producer(built, store_url, "first").publish().revision == 1
    assert producer(built, store_url, "second").publish().revision == 1
    stored = manifest_of(store, layout)
    assert signers_of(stored.envelope, "first", "second") == {"first", "second"}
    assert names_below(store, f"{layout.folder}/manifests") == ["000001.json"]


@pytest.mark.parametrize("moment", [("put", "manifests/"), ("put", "manifest.json"), ("info", "manifest.json")])
def test_two_producers_at_once_leave_one_manifest(
    built: BuiltShard, store_url: str, store: Store, layout: EpochLayout, monkeypatch: pytest.MonkeyPatch, moment: tuple[str, str]
) -> None:
    """Whichever step of the first the second comes between: one content, both signatures, no revision lost."""
    first, second = producer(built, store_url, "first"), producer(built, store_url, "second")
    shard = first.put_shard()
    inject(monkeypatch, store_url, meanwhile(*moment, second.publish))
    first.publisher.finish(context(built), [shard], [0])
    stored = manifest_of(store, layout)
    assert signers_of(stored.envelope, "first", "second") == {"first", "second"}
    revisions = [read_manifest_revision(store, layout, int(name[:6])) for name in names_below(store, f"{layout.folder}/manifests")]
    assert stored.manifest in [revision.manifest for revision in revisions if revision is not None]


def test_an_unsigned_producer_leaves_signatures_alone(built: BuiltShard, store_url: str, store: Store, layout: EpochLayout) -> None:
    """Without a key there is nothing to add."""
    producer(built, store_url, "first").publish()
    before = stored_bytes(store, layout.manifest)
    assert producer(built, store_url, None).publish().signed_by is None
    assert stored_bytes(store, layout.manifest) == before


def test_a_revision_that_a_killed_run_left_is_taken_up(built: BuiltShard, store_url: str, store: Store, layout: EpochLayout) -> None:
    """The manifest gets the left revision's bytes, and no second revision is written."""
    producing = producer(built, store_url)
    producing.publish()
    left = stored_bytes(store, layout.manifest_revision(1))
    store.delete(layout.manifest)
    assert producing.publish().revision == 1
    assert stored_bytes(store, layout.manifest) == left
    assert names_below(store, f"{layout.folder}/manifests") == ["000001.json"]


def test_a_left_revision_that_says_something_else_keeps_its_number(
    built: BuiltShard, store_url: str, store: Store, layout: EpochLayout
) -> None:
    """Revisions are never changed: the next one is written."""
    producing = producer(built, store_url)
    producing.publish()
    store.delete(layout.manifest)
    other = replace(producing, publisher=replace(producing.publisher, trackers=("udp://tracker.example:6969/announce",)))
    assert other.publish().revision == 2
    assert manifest_of(store, layout).manifest.trackers == other.publisher.trackers
    assert names_below(store, f"{layout.folder}/manifests") == ["000001.json", "000002.json"]


def test_a_published_shard_never_changes(built: BuiltShard, store_url: str) -> None:
    """Another state root or number of parts is refused before any part is written."""
    producing = producer(built, store_url)
    producing.publish()
    shard_uid = built.planned.shard.shard_uid
    other_root = CryptoHash(b"\7" * 32)
    with pytest.raises(ManifestError, match="published with state root"):
        producing.publisher.refuse_other_shard(context(built), shard_uid, other_root, 3)
    with pytest.raises(InvalidInputError, match="published in 3 parts, not 4"):
        producing.publisher.refuse_other_shard(context(built), shard_uid, built.state_root, 4)
    producing.publisher.refuse_other_shard(context(built), shard_uid, built.state_root, 3)
    with pytest.raises(ManifestError, match="sync hash"):
        producing.publisher.find_published(replace(context(built), sync_hash=other_root), None)


ALONE = ShardLayout(kind="V2", version=0, shard_ids=(0,))
"""The layout of an epoch with one shard."""
TWO = ShardLayout(kind="V2", version=0, shard_ids=(4, 0), boundary_accounts=("m",))


def test_the_shard_layout_is_published(built: BuiltShard, store_url: str, store: Store, layout: EpochLayout) -> None:
    """With the shards that it names and that are not here, whatever else is known of the epoch."""
    producing = producer(built, store_url)
    producing.publisher.finish(replace(context(built), shard_layout=TWO), [producing.put_shard()], [0])
    manifest = manifest_of(store, layout).manifest
    assert manifest.shard_layout == TWO
    assert [found.shard_id for found in manifest.missing if found.kind == "shard"] == [4]


def test_an_older_manifest_gets_the_shard_layout_and_keeps_it(built: BuiltShard, store_url: str, store: Store, layout: EpochLayout) -> None:
    """A revision adds it and changes nothing else; a producer that does not know it leaves it alone, and so does a rerun."""
    producing = producer(built, store_url)
    producing.publish()
    before = manifest_of(store, layout).manifest
    assert before.shard_layout is None
    informed = replace(context(built), shard_layout=ALONE)
    # What is published is whole: nothing is rebuilt for the layout's sake.
    assert producing.publisher.find_published(informed, 3) is not None
    shard = producing.put_shard()
    assert producing.publisher.finish(informed, [shard], [0]).revision == 2
    after = manifest_of(store, layout).manifest
    assert replace(after, revision=1, created=before.created, shard_layout=None) == before
    assert after.shard_layout == ALONE
    for again in (informed, context(built)):
        assert producing.publisher.finish(again, [shard], [0]).revision == 2
        assert manifest_of(store, layout).manifest.shard_layout == ALONE


def test_a_published_shard_layout_never_changes(built: BuiltShard, store_url: str) -> None:
    """Another one is refused before a part is written, and so is a shard that the published one does not have."""
    producing = producer(built, store_url)
    shard = producing.put_shard()
    producing.publisher.finish(replace(context(built), shard_layout=TWO), [shard], [0])
    shard_uid = built.planned.shard.shard_uid
    other = replace(context(built), shard_layout=replace(TWO, boundary_accounts=("n",)))
    with pytest.raises(ManifestError, match="another shard layout"):
        producing.publisher.find_published(other, None)
    with pytest.raises(ManifestError, match="another shard layout"):
        producing.publisher.refuse_other_shard(other, shard_uid, built.state_root, 3)
    with pytest.raises(ManifestError, match="another shard layout"):
        producing.publisher.finish(other, [shard], [0])
    with pytest.raises(ManifestError, match="has no shard 7"):
        producing.publisher.finish(context(built), [shard], [0, 7])


def test_a_shard_layout_must_have_what_is_published(built: BuiltShard, store_url: str) -> None:
    """A layout of another version does not come into an older manifest."""
    producing = producer(built, store_url)
    producing.publish()
    with pytest.raises(ManifestError, match=r"has no shard s0\.v0"):
        producing.publisher.finish(replace(context(built), shard_layout=replace(ALONE, version=1)), [], [0])


# What a revision keeps


def test_a_revision_remembers_the_shards_that_are_missing(built: BuiltShard, store_url: str, store: Store, layout: EpochLayout) -> None:
    """A dataset of one shard knows only that one, and does not make the epoch complete."""
    producing = producer(built, store_url)
    shard = producing.put_shard()
    producing.publisher.finish(context(built), [shard], [0, 4])
    informed = replace(producing.publisher, trackers=("udp://tracker.example:6969/announce",))
    assert informed.finish(context(built), [shard], [0]).revision == 2
    manifest = manifest_of(store, layout).manifest
    assert manifest.missing_shard_ids == {4}
    assert not manifest.is_complete


def test_a_revision_keeps_the_block_headers(built: BuiltShard, store_url: str, store: Store, layout: EpochLayout) -> None:
    """A producer that has none adds to the epoch, and readers can still hold it to a block."""
    dumped = dumped_header(6, 0).context
    bare = replace(context(built), sync_hash=dumped.sync_hash)
    producing = producer(built, store_url)
    shard = producing.publisher.put_shard(bare, producing.produced())
    producing.publisher.finish(replace(bare, block_headers=dumped.block_headers), [shard], [0])
    assert producing.publisher.finish(bare, [shard], [0, 4]).revision == 2
    assert manifest_of(store, layout).manifest.block_headers == dumped.block_headers


def test_block_headers_that_do_not_hash_are_not_passed_on(built: BuiltShard, store_url: str, store: Store, layout: EpochLayout) -> None:
    """Whatever their origin, the next revision is ours."""
    producing = producer(built, store_url)
    shard = producing.put_shard()
    producing.publisher.finish(replace(context(built), block_headers=(b"\1", b"\2")), [shard], [0])
    producing.publisher.finish(context(built), [shard], [0, 4])
    assert manifest_of(store, layout).manifest.block_headers == ()


def test_a_newer_manifest_gets_a_revision_in_our_words(built: BuiltShard, store_url: str, store: Store, layout: EpochLayout) -> None:
    """What a newer producer added is not known here: it is neither signed nor in the way."""
    producer(built, store_url, "first").publish()
    stored = manifest_of(store, layout)
    document = json.loads(stored.envelope.payload)
    document["predicate"]["of_a_newer_version"] = True
    newer = sign_payload(encode_json(document), (signer("first"),)).to_bytes()
    store.put(layout.manifest, newer)
    store.put(layout.manifest_revision(1), newer)
    assert producer(built, store_url, "second").publish().revision == 2
    assert signers_of(manifest_of(store, layout).envelope, "first", "second") == {"second"}


@pytest.mark.parametrize("other", [{"state_root": CryptoHash(b"\7" * 32)}, {"num_parts": 0, "parts": (), "torrent": None}])
def test_what_is_published_meanwhile_never_changes(
    built: BuiltShard, store_url: str, store: Store, layout: EpochLayout, other: dict[str, Any]
) -> None:
    """A slower producer with another state root or number of parts does not write the next revision."""
    producing = producer(built, store_url)
    shard = producing.put_shard()
    producing.publisher.finish(context(built), [shard], [0])
    before = stored_bytes(store, layout.manifest)
    unknown = replace(context(built), shards=tuple(replace(known, state_root=None) for known in context(built).shards))
    with pytest.raises((ManifestError, InvalidInputError), match="shard 0 is published"):
        producing.publisher.finish(unknown, [replace(shard, listing=replace(shard.listing, **other))], [0])
    assert stored_bytes(store, layout.manifest) == before


# What a rerun finds


def test_what_is_published_is_found(built: BuiltShard, store_url: str) -> None:
    """With the same key and the same number of parts, also without a given number."""
    producing = producer(built, store_url)
    assert producing.publisher.find_published(context(built), 3) is None
    producing.publish()
    found = producing.publisher.find_published(context(built), 3)
    assert found is not None
    assert found.revision == 1
    # As nearcore computes it, the shard would be one part.
    assert producing.publisher.find_published(context(built), None) is None


@pytest.mark.parametrize("kind", ["part", "statement", "torrent", "header"])
def test_what_lacks_an_object_is_not_found(built: BuiltShard, store_url: str, store: Store, layout: EpochLayout, kind: str) -> None:
    """Any object that a production would make."""
    producing = producer(built, store_url, state_header=fitting_header(built))
    producing.publish()
    names = {
        "part": layout.state_part(0, built.planned.plans[2].part_id),
        "statement": layout.shard_statement(0),
        "torrent": layout.torrent(0),
        "header": layout.state_header(0),
    }
    store.delete(names[kind])
    assert producing.publisher.find_published(context(built), 3) is None


def test_what_another_key_signed_is_not_found(built: BuiltShard, store_url: str) -> None:
    """There is still our signature to add."""
    producer(built, store_url, "first").publish()
    assert producer(built, store_url, "second").publisher.find_published(context(built), 3) is None


def test_a_pointer_that_a_killed_run_did_not_move_is_moved(built: BuiltShard, store_url: str, store: Store) -> None:
    """A rerun that has nothing else to do moves it."""
    producing = producer(built, store_url)
    producing.publish()
    name = latest_name(context(built).chain_id)
    before = stored_bytes(store, name)
    store.delete(name)
    assert producing.publisher.find_published(context(built), 3) is not None
    assert stored_bytes(store, name) == before


# The pointer


def test_the_pointer_never_moves_back(built: BuiltShard, store_url: str, store: Store) -> None:
    """A later epoch stays the latest one."""
    name = latest_name(context(built).chain_id)
    later = LatestPointer(context(built).chain_id, 1000, CryptoHash(b"\5" * 32), 1, "0" * 64).to_bytes()
    store.put(name, later)
    producer(built, store_url).publish()
    assert stored_bytes(store, name) == later


def test_a_pointer_that_says_nothing_is_replaced(built: BuiltShard, store_url: str, store: Store) -> None:
    """And the run says so."""
    name = latest_name(context(built).chain_id)
    store.put(name, b"{")
    published = producer(built, store_url).publish()
    assert any("pointer was replaced" in note for note in published.notes)
    assert LatestPointer.parse(stored_bytes(store, name), name).epoch_height == context(built).epoch_height


def test_an_epoch_with_a_shard_missing_is_never_the_latest(built: BuiltShard, store_url: str, store: Store, layout: EpochLayout) -> None:
    """The manifest says which shard is missing, and no pointer names it."""
    producing = producer(built, store_url)
    producing.publisher.finish(context(built), [producing.put_shard()], [0, 4])
    assert [found.shard_id for found in manifest_of(store, layout).manifest.missing if found.kind == "shard"] == [4]
    assert store.info(latest_name(context(built).chain_id)) is None


def test_without_libtorrent_the_epoch_is_published_all_the_same(
    built: BuiltShard, store_url: str, store: Store, layout: EpochLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest says that there is no torrent, and why."""

    def missing(*_: object) -> None:
        raise InvalidInputError(problem="libtorrent is not installed")

    monkeypatch.setattr(shard_publisher, "build_torrent", missing)
    producer(built, store_url).publish()
    manifest = manifest_of(store, layout).manifest
    assert manifest.shards[0].torrent is None
    assert [found.reason for found in manifest.missing if found.kind == "torrent"] == ["libtorrent is not installed"]
