"""Publishers with a key and a bucket each, as *k of n* is set up: from keygen to fetched parts, with one of them stolen or late."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import lru_cache
from itertools import permutations
from pathlib import Path

import pytest

from pipelines.fetching.fetch_folder import WORK_FOLDER
from pipelines.fetching.fetch_result import FetchResult
from pipelines.fetching.fetch_settings import FetchSettings
from pipelines.producing.build_shard import BuiltShard
from pipelines.producing.publish.epoch_publisher import EpochPublisher
from pipelines.producing.publish.key_file import load_signer
from pipelines.producing.publish.shard_publisher import ProducedShard
from pipelines.producing.publish.signing import sign_payload
from pipelines.trust.policy import TrustPolicy
from pipelines.trust.signatures import TrustRule
from schemas.errors import EpochNotReadyError, EquivocationError, FetchError, ManifestError, RollbackError, SignatureError, StatecastError
from schemas.nearcore.state_part import Encoding
from schemas.published.dsse import parse_envelope
from schemas.published.latest_pointer import LatestPointer
from schemas.published.manifest import Manifest
from schemas.published.object_layout import EpochLayout, latest_name
from schemas.published.public_key import PublicKey
from schemas.published.shard_statement import ShardStatement
from tests.support.commands import statecast
from tests.support.fetches import QUICK, fetch, final_names
from tests.support.productions import context, header_of, publish_tasks, signer, small_shard
from tests.support.published import public_key, session_folder, signing_key
from tests.support.stored_epochs import CHAIN_ID, NUM_PARTS, epoch_layout, publish_epoch

KEYS = ("north", "south", "west")
HEIGHT = 7
LAYOUT = epoch_layout(HEIGHT)


@lru_cache
def published(key: str) -> Path:
    """The bucket of one publisher, with a key that the command made. It must not be changed."""
    if not (session_folder() / f"{key}.json").exists():
        assert statecast("keygen", session_folder() / f"{key}.json").code == 0
    folder = session_folder() / f"bucket-{key}"
    # Nothing but the web seed tells apart what two publish in the same second.
    publish_epoch(f"file://{folder}", HEIGHT, key=key, web_seeds=(f"https://{key}.example/states/{LAYOUT.folder}/",))
    return folder


def copied(key: str, tmp_path: Path) -> Path:
    """A copy of a publisher's bucket to change."""
    return shutil.copytree(published(key), tmp_path / f"changed-{key}")


def sign(path: Path, payload: bytes, *keys: str) -> None:
    """Write an envelope with these keys' signatures."""
    path.write_bytes(sign_payload(payload, [load_signer(signing_key(key)) for key in keys]).to_bytes())


def manifest_in(bucket: Path) -> Manifest:
    """The manifest in a bucket."""
    return Manifest.from_payload(parse_envelope((bucket / LAYOUT.manifest).read_bytes(), "test").payload, "test")


def statement_in(bucket: Path) -> ShardStatement:
    """The shard's statement in a bucket."""
    return ShardStatement.from_payload(parse_envelope((bucket / LAYOUT.shard_statement(0)).read_bytes(), "test").payload, "test")


def with_first_shard(manifest: Manifest, **changes: object) -> Manifest:
    """A manifest that says something else of its first shard."""
    return replace(manifest, shards=(replace(manifest.shards[0], **changes), *manifest.shards[1:]))  # type: ignore[arg-type]


def falsify(bucket: Path, key: str) -> None:
    """Do what a thief of a key would: a false statement, and the manifest of a high revision that names it."""
    statement = statement_in(bucket)
    false = replace(statement, memory_usage=statement.memory_usage + 1)
    sign(bucket / LAYOUT.shard_statement(0), false.to_payload(), key)
    manifest = with_first_shard(replace(manifest_in(bucket), revision=99), statement_sha256=false.payload_sha256)
    sign(bucket / LAYOUT.manifest, manifest.to_payload(), key)


def point_far_ahead(bucket: Path, *keys: str) -> EpochLayout:
    """Move a bucket's epoch to the highest height that there can be, its pointer too; return the names there."""
    layout = replace(LAYOUT, epoch_height=2**64 - 1)
    (bucket / layout.folder).parent.mkdir(parents=True)
    statement, manifest = statement_in(bucket), manifest_in(bucket)
    (bucket / LAYOUT.folder).rename(bucket / layout.folder)
    statement = replace(statement, epoch_height=layout.epoch_height)
    manifest = with_first_shard(replace(manifest, epoch_height=layout.epoch_height), statement_sha256=statement.payload_sha256)
    sign(bucket / layout.shard_statement(0), statement.to_payload(), *keys)
    sign(bucket / layout.manifest, manifest.to_payload(), *keys)
    payload_sha256 = sign_payload(manifest.to_payload(), ()).payload_sha256
    pointer = LatestPointer(CHAIN_ID, layout.epoch_height, layout.epoch_id, manifest.revision, payload_sha256)
    (bucket / latest_name(CHAIN_ID)).write_bytes(pointer.to_bytes())
    return layout


def settings(into: Path, buckets: list[Path], keys: tuple[str, ...], threshold: int = 1, **changes: object) -> FetchSettings:
    """Settings of a reader that pins these keys."""
    rule = TrustRule(tuple(PublicKey.parse(public_key(key)) for key in keys), threshold)
    made = FetchSettings(
        url=str(buckets[0]),
        source_urls=tuple(map(str, buckets[1:])),
        chain_id=CHAIN_ID,
        epoch="latest",
        shard_ids=(),
        into=into,
        policy=TrustPolicy(rule),
        limits=QUICK,
        kernel_name="auto",
        verify_workers=1,
        verify_in_threads=True,
        hold_lease=False,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def read(into: Path, buckets: list[Path], keys: tuple[str, ...], threshold: int = 1, **changes: object) -> FetchResult:
    """Fetch, and see that all parts are there."""
    result = fetch(settings(into, buckets, keys, threshold, **changes))
    assert len([name for name in final_names(into) if "state_part" in name]) == NUM_PARTS
    return result


def outcome(n: int, threshold: int, last: str) -> type[StatecastError] | None:
    """What a reader of n publishers comes to, when the last of them is honest, late or stolen."""
    if last == "honest" or (last == "late" and threshold < n):
        return None
    if threshold == n:
        return SignatureError
    # Where one signature is enough, the stolen key's word is as good as an honest one's: nothing is believed.
    return None if threshold > 1 else ManifestError


@pytest.mark.parametrize("last", ["honest", "late", "stolen"])
@pytest.mark.parametrize(("n", "threshold"), [(2, 1), (2, 2), (3, 1), (3, 2), (3, 3)])
def test_k_of_n_publishers_with_a_bucket_each(n: int, threshold: int, last: str, tmp_path: Path) -> None:
    """As many honest ones as the threshold asks are enough, and fewer are not."""
    keys = KEYS[:n]
    buckets = [published(key) for key in keys]
    if last == "stolen":
        buckets[-1] = copied(keys[-1], tmp_path)
        falsify(buckets[-1], keys[-1])
    elif last == "late":
        buckets[-1] = tmp_path / "empty"
        buckets[-1].mkdir()
    expected = outcome(n, threshold, last)
    if expected is None:
        result = read(tmp_path / "into", buckets, keys, threshold)
        (shard,) = result.shards
        assert len(shard.believed.statement.signers) == (n if last == "honest" else n - 1)
        assert not [report for report in result.sources if report.banned]
        assert public_key(keys[-1]) not in result.manifest_signers or last == "honest"
    else:
        with pytest.raises(expected) as caught:
            read(tmp_path / "into", buckets, keys, threshold)
        assert type(caught.value) is expected
        assert final_names(tmp_path / "into") == []


def test_an_epoch_height_that_one_stolen_key_claims_is_passed_over(tmp_path: Path) -> None:
    """The pointer of its bucket comes first, and too few stand behind what it points at; nothing of it is remembered."""
    stolen = copied("west", tmp_path)
    point_far_ahead(stolen, "west")
    result = read(tmp_path / "into", [stolen, published("north"), published("south")], KEYS, 2)
    assert result.layout == LAYOUT
    assert public_key("west") not in (tmp_path / "into" / WORK_FOLDER / f"accepted-{CHAIN_ID}.json").read_text()


def test_every_reader_follows_the_same_manifest(tmp_path: Path) -> None:
    """Whatever the order of its sources and keys."""
    followed = set()
    for number, order in enumerate(permutations(KEYS)):
        read(tmp_path / str(number), [published(key) for key in order], order, 2)
        followed.add((tmp_path / str(number) / LAYOUT.manifest).read_bytes())
    assert len(followed) == 1


def test_a_fetched_folder_has_the_signatures_of_all(tmp_path: Path) -> None:
    """So that one place is enough for what reads one place; the command ends with 21 where too few have signed."""
    pinned = [option for key in KEYS[:2] for option in ("--trust-key", public_key(key))]
    read(tmp_path / "into", [published("north"), published("south")], KEYS[:2], 2)
    for folder, code in ((tmp_path / "into", 0), (published("north"), 21)):
        checked = statecast("check", folder / LAYOUT.folder, *pinned, "--trust-threshold", 2, "--in-process")
        assert checked.code == code, checked.stderr
    options = ("--chain-id", CHAIN_ID, "--epoch", "latest", *pinned, "--trust-threshold", 2)
    assert statecast("fetch", published("north"), "--into", tmp_path / "other", *options).code == 21


def _two_revisions(bucket: Path) -> None:
    manifest = manifest_in(bucket)
    sign(bucket / LAYOUT.manifest, replace(manifest, trackers=("udp://other.example:1/announce",)).to_payload(), "west")


def test_a_key_that_signed_two_manifests_of_one_revision_counts_no_more(tmp_path: Path) -> None:
    """Others that are pinned still do; alone it is an error that names it."""
    other = copied("west", tmp_path)
    _two_revisions(other)
    result = read(tmp_path / "into", [other, published("west"), published("north")], ("north", "west"))
    assert result.manifest_signers == (public_key("north"),)
    assert any(public_key("west") in warning for warning in result.warnings)
    with pytest.raises(EquivocationError, match=public_key("west")):
        read(tmp_path / "alone", [other, published("west")], ("west",))


def test_a_key_that_signed_two_statements_counts_no_more(tmp_path: Path) -> None:
    """The threshold must be reached without it."""
    stolen = copied("west", tmp_path)
    falsify(stolen, "west")
    buckets = [stolen, published("west"), published("north"), published("south")]
    result = read(tmp_path / "into", buckets, KEYS, 2)
    assert len(result.shards[0].believed.statement.signers) == 2
    assert any(public_key("west") in warning for warning in result.warnings)
    with pytest.raises(EquivocationError, match=public_key("west")):
        read(tmp_path / "other", buckets[:3], KEYS, 2)


def test_a_stolen_key_can_t_list_other_bytes_under_true_statements(tmp_path: Path) -> None:
    """No proof covers stored bytes; where they can't be had, the next manifest is followed, and no honest source stays banned."""
    stolen = copied("west", tmp_path)
    manifest = manifest_in(stolen)
    parts = tuple(replace(part, sha256="0" * 64) for part in manifest.shards[0].parts)
    sign(stolen / LAYOUT.manifest, with_first_shard(replace(manifest, revision=99), parts=parts).to_payload(), "west")
    result = read(tmp_path / "into", [stolen, published("north"), published("south")], KEYS, 2)
    assert public_key("west") not in result.manifest_signers
    assert not [report for report in result.sources if report.banned]
    # Nor does what the key has signed bind the others the next time.
    read(tmp_path / "into", [published("north"), published("south")], KEYS, 2)


@pytest.mark.parametrize("forged", ["revision", "height"])
@pytest.mark.parametrize("by", ["nobody", "a key that is dropped"])
def test_what_nobody_trusted_signed_does_not_lock_an_honest_publisher_out(forged: str, by: str, tmp_path: Path) -> None:
    """Neither a revision nor an epoch height; and the folder's pointer follows."""
    hostile, into = copied("west", tmp_path), tmp_path / "into"
    signers = () if by == "nobody" else ("west",)
    layout = LAYOUT
    if forged == "height":
        layout = point_far_ahead(hostile, *signers)
    else:
        sign(hostile / LAYOUT.manifest, replace(manifest_in(hostile), revision=999_999).to_payload(), *signers)
    believed = TrustPolicy(insecure=True) if by == "nobody" else settings(into, [hostile], ("west", "north")).policy
    assert fetch(settings(into, [hostile], ("west",), policy=believed)).layout == layout

    result = fetch(settings(into, [published("north")], ("north",) if by != "nobody" else ("north", "west")))
    assert (result.layout, result.revision) == (LAYOUT, 1)
    assert LatestPointer.parse((into / latest_name(CHAIN_ID)).read_bytes(), "test").layout == LAYOUT


def test_what_a_publisher_signed_binds_it(tmp_path: Path) -> None:
    """Its older revision is a rollback; another publisher's lower one is not."""
    newer, into = copied("north", tmp_path), tmp_path / "into"
    sign(newer / LAYOUT.manifest, replace(manifest_in(newer), revision=7).to_payload(), "north")
    assert read(into, [newer], ("north", "south")).revision == 7
    with pytest.raises(RollbackError):
        read(into, [published("north")], ("north", "south"))
    assert read(into, [published("north"), published("south")], ("north", "south")).manifest_signers == (public_key("south"),)


def test_a_publisher_that_is_late_is_not_locked_out_by_one_that_is_ahead(tmp_path: Path) -> None:
    """Its latest epoch is its own; that there was a newer one is said, and the folder's pointer stays there."""
    ahead, into = tmp_path / "ahead", tmp_path / "into"
    publish_epoch(f"file://{ahead}", HEIGHT + 1, key="north")
    assert fetch(settings(into, [ahead], KEYS)).layout == epoch_layout(HEIGHT + 1)
    with pytest.raises(RollbackError, match="--epoch"):
        fetch(settings(into, [published("north")], KEYS))
    result = fetch(settings(into, [published("south")], KEYS))
    assert result.layout == LAYOUT
    assert [warning for warning in result.warnings if f"epoch {HEIGHT + 1} was accepted before" in warning]
    assert LatestPointer.parse((into / latest_name(CHAIN_ID)).read_bytes(), "test").layout == epoch_layout(HEIGHT + 1)


def test_a_memory_of_before_signers_is_left_and_said(tmp_path: Path) -> None:
    """Nobody can tell what of it was signed."""
    into = tmp_path / "into"
    memory = into / WORK_FOLDER / f"accepted-{CHAIN_ID}.json"
    memory.parent.mkdir(parents=True)
    epochs = f'[{{"epoch_height":7,"epoch_id":"{LAYOUT.epoch_id}","manifest_sha256":"{"0" * 64}","revision":999999}}]'
    memory.write_text(f'{{"chain_id":"{CHAIN_ID}","epochs":{epochs},"format":"urn:statecast:accepted:v1"}}')
    result = read(into, [published("north")], ("north",))
    assert [warning for warning in result.warnings if "memory" in warning]
    assert not [warning for warning in read(into, [published("north")], ("north",)).warnings if "memory" in warning]


@pytest.mark.parametrize("replayed", ["another epoch's", "one without the header", "another type's"])
def test_a_genuine_document_under_another_name_is_evidence_of_nothing(replayed: str, tmp_path: Path) -> None:
    """One mirror serves it; the other source is enough, and the key is not accused."""
    mirror = copied("north", tmp_path)
    statement = statement_in(mirror)
    if replayed == "another epoch's":
        statement = replace(statement, epoch_id=epoch_layout(8).epoch_id, epoch_height=8)
    elif replayed == "one without the header":
        statement = replace(statement, header_sha256=None)
    else:
        statement = replace(statement, memory_usage=1)
    payload_type = "text/plain" if replayed == "another type's" else "application/vnd.in-toto+json"
    envelope = sign_payload(statement.to_payload(), [load_signer(signing_key("north"))], payload_type)
    (mirror / LAYOUT.shard_statement(0)).write_bytes(envelope.to_bytes())
    for buckets in ([mirror, published("north")], [published("north"), mirror]):
        result = read(tmp_path / f"into-{len(buckets[0].name)}", buckets, ("north",))
        assert not [warning for warning in result.warnings if "contradict" in warning]


def test_a_manifest_without_shards_is_passed_over(tmp_path: Path) -> None:
    """No statement of it could be asked for, so that one key would stand for all."""
    hostile = copied("west", tmp_path)
    manifest = manifest_in(hostile)
    manifest = replace(manifest, revision=99, shards=(), missing=manifest.missing[-1:], shard_layout=None)
    sign(hostile / LAYOUT.manifest, manifest.to_payload(), "west")
    with pytest.raises(EpochNotReadyError, match="no shard"):
        read(tmp_path / "alone", [hostile], ("west",))
    assert read(tmp_path / "into", [hostile, published("north")], ("north", "west")).manifest_signers == (public_key("north"),)


@lru_cache
def built_in(num_parts: int) -> BuiltShard:
    """A small shard in so many parts."""
    return small_shard(num_parts=num_parts)


def published_in_own_form(root: Path, key: str, num_parts: int, zstd_level: int) -> Path:
    """The same state as another publisher stores it."""
    built = built_in(num_parts)
    parts = tuple(task.run() for task in publish_tasks(built, f"file://{root}", zstd_level=zstd_level))
    publisher = EpochPublisher(f"file://{root}", signer(key), Encoding.V1, zstd_level)
    shard = publisher.put_shard(context(built), ProducedShard(built.state, parts, header_of(None)))
    publisher.finish(context(built), [shard], [0])
    return root


def test_of_a_manifest_that_was_tried_in_vain_no_part_is_left(tmp_path: Path) -> None:
    """Nodes count all objects of a shard's folder."""
    in_two = published_in_own_form(tmp_path / "two", "north", 2, 1)
    in_three = published_in_own_form(tmp_path / "three", "south", 3, 1)
    next(in_two.rglob("state_part_000001*")).unlink()
    into = tmp_path / "into"
    fetch(settings(into, [in_two, in_three], KEYS, policy=TrustPolicy(insecure=True)))
    assert sorted({path.name.partition("_of_")[2] for path in into.rglob("state_part_*")}) == ["000003"]


def test_a_publisher_that_stores_its_parts_otherwise_is_no_liar(tmp_path: Path) -> None:
    """It is not asked for the other's bytes, and not banned."""
    buckets = [published_in_own_form(tmp_path / key, key, 3, level) for key, level in (("north", 1), ("south", 19))]
    for order in (buckets, buckets[::-1]):
        result = fetch(settings(tmp_path / f"into-{order[0].name}", order, KEYS, 2))
        assert sorted(report.parts for report in result.sources) == [0, 3]
        assert not [report for report in result.sources if report.banned or report.problems]


def test_what_came_by_one_manifest_is_not_lost_when_the_next_fails_too(tmp_path: Path) -> None:
    """Two publishers whose stored bytes differ, each without one part: the next fetch finds what is right of it."""
    one, other = (published_in_own_form(tmp_path / key, key, 3, level) for key, level in (("north", 1), ("south", 19)))
    lacking = [next(one.rglob("state_part_000000*")), next(other.rglob("state_part_000001*"))]
    assert next(other.rglob("state_part_000000*")).read_bytes() != lacking[0].read_bytes(), "the test needs two forms"
    kept = [path.read_bytes() for path in lacking]
    for path in lacking:
        path.unlink()
    wanted = settings(tmp_path / "into", [one, other], KEYS)
    with pytest.raises(FetchError):
        fetch(wanted)
    assert len([*wanted.into.rglob("state_part_*")]) == 3
    lacking[0].write_bytes(kept[0])
    assert fetch(wanted).manifest_signers == (public_key("north"),)
