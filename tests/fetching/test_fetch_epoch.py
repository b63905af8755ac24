"""Whole fetches: many kinds of sources at once, reuse, trust, plans, limits."""

from __future__ import annotations

import base64
import json
import shutil
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from pipelines.fetching.believed_epoch import FetchSources
from pipelines.fetching.fetch_epoch import EpochFetch
from pipelines.fetching.fetch_folder import WORK_FOLDER, FetchFolder
from pipelines.fetching.source import Cancellation, WantedObject
from pipelines.producing.publish.key_file import load_signer
from pipelines.producing.publish.signing import sign_payload
from pipelines.stores.memory_store import open_memory_store
from pipelines.stores.open_store import open_store
from pipelines.stores.store import Store
from pipelines.trust.policy import BelievedManifest, TrustPolicy
from pipelines.trust.signatures import TrustRule
from schemas.errors import (
    ClaimedError,
    EpochNotReadyError,
    EquivocationError,
    IntegrityError,
    ManifestError,
    RollbackError,
    SignatureError,
    StoreDeniedError,
)
from schemas.ids import CryptoHash
from schemas.published.manifest import Manifest, MissingKind, MissingObject
from schemas.published.object_layout import latest_name
from schemas.published.public_key import PublicKey
from tests.support.fault_server import fault_server
from tests.support.fetches import (
    NUM_PARTS,
    QUICK,
    Recorder,
    fetch,
    final_names,
    is_whole,
    parts_layout,
    parts_manifest,
    published_parts,
    settings_for,
    wrong_final_names,
)
from tests.support.native_wheel import needs_headers
from tests.support.published import public_key, signing_key
from tests.support.servers import aws_environment, fake_gcs_server, make_gcs_bucket, make_s3_bucket, moto_server, versitygw_server

PARTS = 4 * NUM_PARTS


def copied(tmp_path: Path) -> Path:
    """A copy of the published epoch to damage."""
    return shutil.copytree(published_parts(), tmp_path / "bucket")


def sign_again(root: Path, manifest: Manifest) -> None:
    """Replace the manifest in a copy by another one of the same publisher."""
    envelope = sign_payload(manifest.to_payload(), [load_signer(signing_key())])
    (root / parts_layout().manifest).write_bytes(envelope.to_bytes())


def test_a_folder_an_s3_bucket_and_two_web_servers_at_once(tmp_path: Path) -> None:
    """Each brings some of the parts; what is left is the published epoch, byte for byte."""
    with aws_environment(), moto_server() as endpoint, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        make_s3_bucket(endpoint, "parts")
        store = open_store("s3://parts/prefix")
        for path in published_parts().rglob("*"):
            name = str(path.relative_to(published_parts()))
            if path.is_file() and name.startswith("chain_id="):
                store.put(name, path.read_bytes())
        with fault_server(published_parts(), tmp_path / "one") as one, fault_server(published_parts(), tmp_path / "two") as two:
            sources = (published_parts(), "s3://parts/prefix", one.url, two.url)
            limits = replace(QUICK, connections=8, connections_per_source=2)
            result = fetch(settings_for(tmp_path / "into", *sources, limits=limits))
    assert is_whole(tmp_path / "into", published_parts())
    assert sum(report.parts for report in result.sources) == PARTS
    assert len(result.sources) == 4 and sum(report.errors for report in result.sources) == 0
    assert sum(report.parts > 0 for report in result.sources) >= 3


def test_a_second_fetch_reuses_all_and_asks_for_no_part(tmp_path: Path) -> None:
    """Only documents are read again."""
    into = tmp_path / "into"
    fetch(settings_for(into, published_parts()))
    with fault_server(published_parts(), tmp_path / "log") as server:
        result = fetch(settings_for(into, server.url))
        assert not [request for request in server.requests if "state_part" in request or "header" in request]
    assert [(len(shard.here), shard.missing) for shard in result.shards] == [(NUM_PARTS, ())] * 4
    assert is_whole(into, published_parts())


@pytest.mark.parametrize("damage", ["changed", "cut", "empty", "other part"])
def test_what_is_here_and_not_right_is_fetched_again(damage: str, tmp_path: Path) -> None:
    """A final name is believed no more than a source."""
    into = tmp_path / "into"
    fetch(settings_for(into, published_parts()))
    first, second, *_ = sorted(into.rglob("state_part_*"))
    data = first.read_bytes()
    damaged = {"changed": bytes([data[0] ^ 1]) + data[1:], "cut": data[:-1], "empty": b"", "other part": second.read_bytes()}
    first.write_bytes(damaged[damage])
    result = fetch(settings_for(into, published_parts()))
    assert sum(len(shard.missing) for shard in result.shards) == 1
    assert is_whole(into, published_parts())


def test_shards_can_be_chosen(tmp_path: Path) -> None:
    """Others leave no trace."""
    result = fetch(settings_for(tmp_path / "into", published_parts(), shard_ids=(2,)))
    assert [shard.believed.shard_id for shard in result.shards] == [2]
    assert not [name for name in final_names(tmp_path / "into") if "shard_id=1" in name]


@pytest.mark.parametrize("named_by", ["latest", "height", "id"])
def test_an_epoch_is_found_by_height_id_or_as_the_latest(named_by: str, tmp_path: Path) -> None:
    """In a store without a pointer too, but for the latest."""
    root = copied(tmp_path)
    epoch = {"latest": "latest", "height": str(parts_manifest().epoch_height), "id": str(parts_manifest().epoch_id)}[named_by]
    if named_by != "latest":
        (root / latest_name(parts_manifest().chain_id)).unlink()
    assert fetch(settings_for(tmp_path / "into", root, epoch=epoch, shard_ids=(0,))).layout == parts_layout()


def test_the_url_of_an_epoch_names_it(tmp_path: Path) -> None:
    """Chain and epoch need not be given."""
    result = fetch(settings_for(tmp_path / "into", published_parts() / parts_layout().folder, chain_id=None, shard_ids=(0,)))
    assert result.layout == parts_layout()


def test_an_unknown_epoch_is_not_ready(tmp_path: Path) -> None:
    """By height, and where nothing is published at all."""
    with pytest.raises(EpochNotReadyError):
        fetch(settings_for(tmp_path / "into", published_parts(), epoch="99"))
    with pytest.raises(EpochNotReadyError):
        fetch(settings_for(tmp_path / "into", published_parts() / parts_layout().folder.replace("height=6", "height=7"), chain_id=None))


def test_a_plan_says_what_is_here_and_writes_nothing(tmp_path: Path) -> None:
    """Bytes, parts, and the sources that it would ask."""
    into = tmp_path / "into"
    plan = EpochFetch(settings_for(into, published_parts()), Recorder(), Random(1)).plan()
    assert not into.exists()
    assert sum(len(shard.missing) for shard in plan.shards) == sum(source.parts for source in plan.sources) == PARTS
    fetch(settings_for(into, published_parts(), shard_ids=(1,)))
    plan = EpochFetch(settings_for(into, published_parts()), Recorder(), Random(1)).plan()
    assert [len(shard.here) for shard in plan.shards] == [0, NUM_PARTS, 0, 0]
    assert sum(source.size for source in plan.sources) == sum(part.size for shard in plan.shards for part in shard.missing)


def test_a_key_that_did_not_sign_is_not_enough(tmp_path: Path) -> None:
    """Before a byte of a part is asked for."""
    settings = settings_for(tmp_path / "into", published_parts())
    assert settings.policy.keys is not None
    other = replace(settings.policy.keys, keys=(replace(settings.policy.keys.keys[0], data=b"\1" * 32),))
    with pytest.raises(SignatureError):
        fetch(replace(settings, policy=TrustPolicy(other)))
    assert final_names(tmp_path / "into") == []


@needs_headers
def test_a_trusted_block_is_enough_and_another_is_not(tmp_path: Path) -> None:
    """No key is needed; a hash that is no block's of the manifest proves nothing."""
    settings = settings_for(tmp_path / "into", published_parts(), shard_ids=(0,))
    fetch(replace(settings, policy=TrustPolicy(trusted_block=parts_manifest().sync_hash)))
    with pytest.raises(ManifestError, match="trusted block"):
        fetch(replace(settings, into=tmp_path / "other", policy=TrustPolicy(trusted_block=parts_manifest().epoch_id)))
    assert final_names(tmp_path / "other") == []


@needs_headers
@pytest.mark.parametrize("by", ["keys", "block"])
def test_who_hides_shards_is_not_followed_where_another_lists_them(by: str, tmp_path: Path) -> None:
    """Each shard that is listed is proved; that the others are not there, nobody proves."""
    hostile, into = copied(tmp_path), tmp_path / "into"
    hiding = replace(parts_manifest(), revision=99, shards=parts_manifest().shards[:1], missing=(), shard_layout=None)
    signers = [load_signer(signing_key("second"))] if by == "keys" else []
    (hostile / parts_layout().manifest).write_bytes(sign_payload(hiding.to_payload(), signers).to_bytes())
    keys = TrustRule((PublicKey.parse(public_key()), PublicKey.parse(public_key("second"))))
    policy = TrustPolicy(keys) if by == "keys" else TrustPolicy(trusted_block=hiding.sync_hash)
    result = fetch(settings_for(into, hostile, published_parts(), policy=policy))
    assert [shard.believed.shard_id for shard in result.shards] == [shard.shard_id for shard in parts_manifest().shards]


@needs_headers
@pytest.mark.parametrize("lie", ["no block headers", "state root", "header", "stored bytes", "statement"])
def test_with_a_trusted_block_the_first_source_whose_word_holds_counts(lie: str, tmp_path: Path) -> None:
    """A hostile first one does not end the fetch, and by its word no honest one stays banned."""
    hostile, into = copied(tmp_path), tmp_path / "into"
    manifest, layout = parts_manifest(), parts_layout()
    shard = manifest.shards[0]
    changed = shard
    if lie == "no block headers":
        missing = tuple(found for found in manifest.missing if found.kind is not MissingKind.BLOCK_HEADERS)
        manifest = replace(manifest, block_headers=(), missing=(*missing, MissingObject(MissingKind.BLOCK_HEADERS, "none")))
    elif lie == "state root":
        changed = replace(shard, state_root=CryptoHash(b"\7" * 32))
    elif lie == "header":
        assert shard.header is not None
        changed = replace(shard, header=replace(shard.header, sha256="0" * 64))
    elif lie == "stored bytes":
        changed = replace(shard, parts=tuple(replace(part, sha256="0" * 64) for part in shard.parts))
    else:
        changed = replace(shard, statement_sha256="0" * 64)
    manifest = replace(manifest, revision=99, shards=(changed, *manifest.shards[1:]))
    (hostile / layout.manifest).write_bytes(sign_payload(manifest.to_payload(), ()).to_bytes())
    policy = TrustPolicy(trusted_block=manifest.sync_hash)
    result = fetch(settings_for(into, hostile, published_parts(), policy=policy, shard_ids=(shard.shard_id,)))
    assert result.revision == parts_manifest().revision
    assert not [report for report in result.sources if report.banned]
    assert not wrong_final_names(into, published_parts())


def test_a_publisher_that_signs_a_part_of_another_root_is_an_integrity_error(tmp_path: Path) -> None:
    """The source served what the manifest says: it is not banned, the publisher is named."""
    root = copied(tmp_path)
    shard = parts_manifest().shards[0]
    one, two = shard.parts[0], shard.parts[1]
    folder = root / parts_layout().shard_folder(shard.shard_id)
    first, second = sorted(folder.iterdir())[:2]
    first.write_bytes(second.read_bytes())
    swapped = replace(one, size=two.size, sha256=two.sha256)
    sign_again(
        root,
        replace(parts_manifest(), revision=2, shards=(replace(shard, parts=(swapped, *shard.parts[1:])), *parts_manifest().shards[1:])),
    )
    recorder = Recorder()
    with pytest.raises(IntegrityError, match="publisher"):
        fetch(settings_for(tmp_path / "into", root, shard_ids=(shard.shard_id,)), recorder)
    assert not recorder.named("banned")
    assert not wrong_final_names(tmp_path / "into", published_parts())


def test_an_older_revision_than_was_accepted_is_a_rollback(tmp_path: Path) -> None:
    """The folder remembers, whichever source serves it the next time."""
    root, into = copied(tmp_path), tmp_path / "into"
    sign_again(root, replace(parts_manifest(), revision=2))
    fetch(settings_for(into, root, shard_ids=(0,)))
    with pytest.raises(RollbackError):
        fetch(settings_for(into, published_parts(), shard_ids=(0,)))
    sign_again(root, replace(parts_manifest(), revision=2, producer_version="another"))
    with pytest.raises(EquivocationError):
        fetch(settings_for(into, root, shard_ids=(0,)))


def test_a_memory_that_is_damaged_is_not_passed_over(tmp_path: Path) -> None:
    """Deleting it forgets."""
    into = tmp_path / "into"
    fetch(settings_for(into, published_parts(), shard_ids=(0,)))
    (memory,) = (into / WORK_FOLDER).glob("accepted-*")
    memory.write_bytes(b"{}")
    with pytest.raises(ManifestError):
        fetch(settings_for(into, published_parts(), shard_ids=(0,)))


def test_a_manifest_that_lacks_a_statement_of_its_own_is_refused(tmp_path: Path) -> None:
    """A statement with a changed byte is not the one that is named."""
    root = copied(tmp_path)
    path = root / parts_layout().shard_statement(0)
    envelope = json.loads(path.read_bytes())
    payload = base64.b64decode(envelope["payload"]).replace(b'"decoded_size":', b'"decoded_size":1', 1)
    path.write_text(json.dumps({**envelope, "payload": base64.b64encode(payload).decode()}))
    with pytest.raises(ManifestError):
        fetch(settings_for(tmp_path / "into", root, policy=TrustPolicy(insecure=True), shard_ids=(0,)))


def test_one_fetch_at_a_time_in_a_folder(tmp_path: Path) -> None:
    """The second says so at once."""
    with FetchFolder(tmp_path / "into").opened(), pytest.raises(ClaimedError):
        fetch(settings_for(tmp_path / "into", published_parts()))


def test_the_rate_limit_is_kept(tmp_path: Path) -> None:
    """Over all sources and connections together."""
    sizes = sum(part.size for part in parts_manifest().shards[1].parts)
    limits = replace(QUICK, bytes_per_s=sizes / 1.0)
    began_s = time.monotonic()
    fetch(settings_for(tmp_path / "into", published_parts(), shard_ids=(1,), limits=limits))
    assert time.monotonic() - began_s >= 0.6


def test_mirrors_of_the_manifest_are_used(tmp_path: Path) -> None:
    """The bucket has documents alone; the mirror that the signed manifest names has the parts."""
    root = copied(tmp_path)
    with fault_server(published_parts(), tmp_path / "log") as mirror:
        sign_again(root, replace(parts_manifest(), revision=2, mirrors=(mirror.url,)))
        for path in root.rglob("state_part_*"):
            path.unlink()
        result = fetch(settings_for(tmp_path / "into", root))
        assert {report.source_id: report.parts for report in result.sources}[mirror.url] == PARTS


def test_mirrors_of_a_manifest_that_no_pinned_key_signed_are_not_asked(tmp_path: Path) -> None:
    """A trusted block says what is right, not whom this machine may be sent to."""
    root = copied(tmp_path)
    with fault_server(published_parts(), tmp_path / "log") as mirror:
        sign_again(root, replace(parts_manifest(), revision=2, mirrors=(mirror.url,)))
        result = fetch(settings_for(tmp_path / "into", root, policy=TrustPolicy(insecure=True), shard_ids=(1,)))
        assert mirror.requests == [] and [report.source_id for report in result.sources] == [f"file://{root}"]
        assert any("no pinned key has signed it" in warning for warning in result.warnings)


@pytest.mark.parametrize("named", ["http://far.example", "folder"])
def test_a_mirror_in_the_readers_network_is_asked_only_where_the_named_source_is_there_too(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even a pinned key does not send this machine to what only it can reach; a public mirror is asked as nobody."""
    opened: list[tuple[str, bool]] = []

    def open_noted(url: str, *, anonymous: bool = False, **options: object) -> Store:
        opened.append((url, anonymous))
        return open_memory_store(url) if url.startswith("s3:") else open_store(url, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("pipelines.fetching.source_from_url.open_store", open_noted)
    with fault_server(published_parts(), tmp_path / "log") as mirror:
        sources = FetchSources(settings_for(tmp_path / "into", named), Recorder(), Random(1))
        sources.open()
        manifest = replace(parts_manifest(), mirrors=(mirror.url, "s3://mirror/parts"))
        envelope = sign_payload(manifest.to_payload(), [load_signer(signing_key())])
        source_id = sources.sources[0].source_id
        sources.add_mirrors(BelievedManifest(manifest, envelope, (source_id,), (PublicKey.parse(public_key()),), None))
        name = parts_layout().manifest
        asked = next(source for source in sources.sources if source.source_id == mirror.url)
        if named == "folder":
            assert b"".join(asked.stream(WantedObject(name, None, 1 << 20), 0, Cancellation()))
        else:
            with pytest.raises(StoreDeniedError, match="not public"):
                next(iter(asked.stream(WantedObject(name, None, 1 << 20), 0, Cancellation())))
            assert mirror.requests == []
        assert opened[-1] == ("s3://mirror/parts", True)


@pytest.mark.parametrize("layers", [None, []], ids=["none", "list"])
def test_a_torrent_that_was_changed_outside_of_its_info_hashes_is_taken_from_the_next_source(layers: object, tmp_path: Path) -> None:
    """Piece layers lie outside of them; what stands under a torrent's name is what was published."""
    lt = pytest.importorskip("libtorrent", reason="the extra p2p is not installed")
    shutil.copytree(published_parts(), tmp_path / "changed")
    for path in tmp_path.joinpath("changed").rglob("*.torrent"):
        document = lt.bdecode(path.read_bytes())
        document.pop(b"piece layers")
        path.write_bytes(lt.bencode(document | ({} if layers is None else {b"piece layers": layers})))
    fetch(settings_for(tmp_path / "into", tmp_path / "changed", published_parts(), shard_ids=(0,)))
    torrent = parts_layout().torrent(0)
    assert (tmp_path / "into" / torrent).read_bytes() == (published_parts() / torrent).read_bytes()


@pytest.mark.slow
def test_gcs_s3_web_and_torrent_at_once(tmp_path: Path) -> None:
    """Servers that run here, each in its own process, and a torrent whose web seed is one of them."""
    from pipelines.fetching.torrent_source import TorrentSettings, TorrentSource

    with ExitStack() as stack:
        stack.enter_context(aws_environment())
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        folder = tmp_path / "s3"
        folder.mkdir()
        s3, gcs = stack.enter_context(versitygw_server(folder)), stack.enter_context(fake_gcs_server())
        patch.setenv("AWS_ENDPOINT_URL", s3)
        patch.setenv("STORAGE_EMULATOR_HOST", gcs)
        make_s3_bucket(s3, "parts")
        make_gcs_bucket(gcs, "parts")
        for url in ("s3://parts", "gs://parts"):
            store = open_store(url)
            for name in final_names(published_parts()):
                if name.startswith("chain_id="):
                    store.put(name, (published_parts() / name).read_bytes())
        web = stack.enter_context(fault_server(published_parts(), tmp_path / "log"))
        seeds = TorrentSettings(web_seeds=(f"{web.url}/{parts_layout().folder}/",))
        settings = settings_for(
            tmp_path / "into", "s3://parts", "gs://parts", web.url, "torrent",
            limits=replace(QUICK, connections=8, connections_per_source=2),
            open_torrent=lambda offer: TorrentSource(offer, seeds),
        )  # fmt: skip
        result = fetch(settings)
    assert is_whole(tmp_path / "into", published_parts())
    assert {report.source_id for report in result.sources} == {"s3://parts", "gs://parts", web.url, "torrent"}
    assert not [report for report in result.sources if report.banned or report.given_up]
    assert all(report.parts for report in result.sources)
