"""Manifests: what is there, and what is said to be missing."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import schemas
from schemas.errors import InvalidInputError, ManifestError
from schemas.ids import CryptoHash, ShardUId
from schemas.json_document import encode_json
from schemas.nearcore.shard_layout import ShardLayout
from schemas.nearcore.state_part import Encoding
from schemas.published.latest_pointer import LatestPointer
from schemas.published.manifest import Manifest, MissingKind, MissingObject, check_urls
from schemas.published.manifest_delta import ManifestDelta
from tests.support.published_values import digest, make_manifest

SCHEMA = json.loads((Path(schemas.__file__).parent / "published" / "manifest.schema.json").read_text())


def _sparse_manifest() -> Manifest:
    """A manifest that lacks one thing of each kind, and says so."""
    manifest = make_manifest()
    first, second = manifest.shards
    first = replace(first, parts=first.parts[:1] + first.parts[2:], header=None, torrent=None)
    missing = (
        MissingObject(MissingKind.SHARD, "not tracked", 5),
        MissingObject(MissingKind.STATE_PART, "to be repaired", 0, 1),
        MissingObject(MissingKind.STATE_HEADER, "the source has none", 0),
        MissingObject(MissingKind.TORRENT, "libtorrent is not installed", 0),
        MissingObject(MissingKind.BLOCK_HEADERS, "the source has none"),
    )
    return replace(
        manifest, expires=None, encoding=Encoding.V0, zstd=None, shards=(first, second), block_headers=(), mirrors=(), missing=missing
    )


@pytest.mark.parametrize("manifest", [make_manifest(), _sparse_manifest()], ids=["whole", "sparse"])
def test_a_manifest_comes_back(manifest: Manifest) -> None:
    """Payload and value are two forms of one thing, and the published schema describes it."""
    payload = manifest.to_payload()
    assert Manifest.from_payload(payload, "test") == manifest
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads(payload), SCHEMA)


def _with_deltas(manifest: Manifest) -> Manifest:
    deltas = (
        ManifestDelta(0, 5, CryptoHash(b"\x05" * 32), "ab" * 32, 0, 0),
        ManifestDelta(0, 6, CryptoHash(b"\x06" * 32), "ab" * 32, 3, 700),
        ManifestDelta(1, 6, CryptoHash(b"\x06" * 32), "cd" * 32, 1, 70),
    )
    return replace(manifest, deltas=deltas)


def test_deltas_come_back() -> None:
    """The JSON Schema knows them, and a manifest without is what it always was."""
    manifest = _with_deltas(make_manifest())
    payload = manifest.to_payload()
    assert Manifest.from_payload(payload, "test") == manifest
    jsonschema.validate(json.loads(payload), SCHEMA)
    assert b"deltas" not in make_manifest().to_payload()


@pytest.mark.parametrize(
    "change",
    [
        lambda deltas: deltas.reverse(),
        lambda deltas: deltas.append(deltas[-1]),
        lambda deltas: deltas[0].update(base_epoch_height=7),
        lambda deltas: deltas[0].update(size=1),
        lambda deltas: deltas[1].update(statement_sha256="ab"),
        lambda deltas: deltas[1].pop("base_epoch_id"),
    ],
    ids=["out of order", "twice", "not from a lower epoch", "bytes of no object", "a short digest", "no base"],
)
def test_deltas_that_can_not_be_are_refused(change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Each fault alone is enough."""
    document = json.loads(_with_deltas(make_manifest()).to_payload())
    change(document["predicate"]["deltas"])
    with pytest.raises(ManifestError):
        Manifest.from_payload(encode_json(document), "test")


def _with_parent(manifest: Manifest) -> Manifest:
    return replace(manifest, shards=(replace(manifest.shards[0], parent_shard_uid=ShardUId(0, 3)), *manifest.shards[1:]))


def test_a_shards_parent_comes_back() -> None:
    """Where there is one; the JSON Schema knows it, and a manifest without parents is what it always was."""
    payload = _with_parent(make_manifest()).to_payload()
    assert Manifest.from_payload(payload, "test") == _with_parent(make_manifest())
    jsonschema.validate(json.loads(payload), SCHEMA)
    assert b"parent_shard_uid" not in make_manifest().to_payload()
    assert json.loads(payload)["predicate"]["shards"][0]["parent_shard_uid"] == "s3.v0"


LAYOUT = ShardLayout(kind="V2", version=1, shard_ids=(5, 0, 1), boundary_accounts=("aurora", "near"))
"""Of the manifest's two shards and the one that is missing."""


@pytest.mark.parametrize(
    "shard_layout",
    [
        LAYOUT,
        replace(LAYOUT, kind="V3", version=3),
        ShardLayout(kind="V1", version=1, shard_ids=(0, 1, 2), boundary_accounts=("aurora", "near")),
        ShardLayout(kind="V0", version=1, shard_ids=(0, 1, 2)),
    ],
    ids=lambda layout: layout.kind,
)
def test_the_epochs_shard_layout_comes_back(shard_layout: ShardLayout) -> None:
    """Where it is known, of any kind; the JSON Schema knows it, and a manifest without it is what it always was."""
    manifest = make_manifest()
    shards = tuple(replace(shard, shard_uid=ShardUId(shard_layout.version, shard.shard_id)) for shard in manifest.shards)
    (other,) = set(shard_layout.shard_ids) - {0, 1}
    manifest = replace(
        manifest, shards=shards, missing=(MissingObject(MissingKind.SHARD, "not tracked", other),), shard_layout=shard_layout
    )
    payload = manifest.to_payload()
    assert Manifest.from_payload(payload, "test") == manifest
    jsonschema.validate(json.loads(payload), SCHEMA)
    assert json.loads(payload)["predicate"]["shard_layout"] == shard_layout.to_json()
    assert b"shard_layout" not in make_manifest().to_payload()


def test_what_a_shard_layout_says_besides_is_passed_over() -> None:
    """Whatever form it has: a layout of the manifest assigns accounts, and parents are each shard's own."""
    manifest = replace(make_manifest(), shard_layout=LAYOUT)
    document = json.loads(manifest.to_payload())
    document["predicate"]["shard_layout"]["V2"].update(shards_split_map="of another form", shards_parent_map=None)
    payload = encode_json(document)
    assert Manifest.from_payload(payload, "test").shard_layout == LAYOUT
    jsonschema.validate(document, SCHEMA)


LAYOUT_DAMAGE: dict[str, Callable[[dict[str, Any], dict[str, Any]], object]] = {
    "a shard that the layout lacks": lambda p, v2: (v2["shard_ids"].pop(), v2["boundary_accounts"].pop()),
    "a missing shard that the layout lacks": lambda p, v2: (v2["shard_ids"].pop(0), v2["boundary_accounts"].pop()),
    "a shard that nobody lists": lambda p, v2: (v2["shard_ids"].append(9), v2["boundary_accounts"].append("z")),
    "another shard": lambda p, v2: v2["shard_ids"].__setitem__(2, 4),
    "another version": lambda p, v2: v2.update(version=2),
    "no version": lambda p, v2: v2.pop("version"),
    "accounts out of order": lambda p, v2: v2["boundary_accounts"].reverse(),
    "an account too many": lambda p, v2: v2["boundary_accounts"].append("z"),
    "an account that is none": lambda p, v2: v2["boundary_accounts"].__setitem__(1, "é"),
    "an account too long": lambda p, v2: v2["boundary_accounts"].__setitem__(1, "b" * 65),
    "a kind of the future": lambda p, v2: p.update(shard_layout={"V4": v2}),
    "two kinds": lambda p, v2: p["shard_layout"].update(V3=v2),
    "no layout": lambda p, v2: p.update(shard_layout=None),
    "a list": lambda p, v2: p.update(shard_layout=[v2]),
}


@pytest.mark.parametrize("change", LAYOUT_DAMAGE.values(), ids=LAYOUT_DAMAGE.keys())
def test_a_shard_layout_that_is_not_the_epochs_is_refused(change: Callable[[dict[str, Any], dict[str, Any]], object]) -> None:
    """It has the shards that are listed, in their version, and those that are missing, and no others."""
    document = json.loads(replace(make_manifest(), shard_layout=LAYOUT).to_payload())
    change(document["predicate"], document["predicate"]["shard_layout"]["V2"])
    with pytest.raises(ManifestError, match="test"):
        Manifest.from_payload(encode_json(document), "test")


def test_subjects_are_the_stored_objects() -> None:
    """Every part and header by its name in the epoch's folder."""
    subjects = make_manifest().subjects()
    assert subjects["shard_id=0/state_part_000001_of_000003"] == digest("stored 1")
    assert subjects["headers/shard_id=1/header"] == digest("header")
    assert len(subjects) == 5


def test_a_manifest_is_complete_without_headers_and_torrents() -> None:
    """Complete means that the state can be had: every part of every shard."""
    manifest = make_manifest()
    assert not manifest.is_complete, "shard 5 is missing"
    assert replace(manifest, missing=()).is_complete
    header = replace(manifest.shards[0], header=None)
    lacking = (MissingObject(MissingKind.STATE_HEADER, "none", 0),)
    assert replace(manifest, shards=(header, manifest.shards[1]), missing=lacking).is_complete


def test_unknown_fields_are_ignored() -> None:
    """A newer publisher may add fields anywhere in the predicate."""
    document = json.loads(make_manifest().to_payload())
    document["predicate"]["added"] = {"later": [1]}
    document["predicate"]["shards"][0]["added"] = "later"
    document["predicate"]["shards"][0]["parts"][0]["added"] = None
    assert Manifest.from_payload(encode_json(document), "test") == make_manifest()


DAMAGE: dict[str, Callable[[dict[str, Any], dict[str, Any]], object]] = {
    "a statement's type": lambda d, p: d.update(predicateType="urn:statecast:shard-statement:v1"),
    "a field missing": lambda d, p: p.pop("revision"),
    "revision zero": lambda d, p: p.update(revision=0),
    "an unknown encoding": lambda d, p: p.update(encoding="v2"),
    "zstd without compression": lambda d, p: p.update(encoding="v0"),
    "compression without zstd": lambda d, p: p.update(zstd=None),
    "no such time": lambda d, p: p.update(created="2026-13-01T00:00:00Z"),
    "another zone": lambda d, p: p.update(created="2026-11-23T08:30:00+01:00"),
    "expired at birth": lambda d, p: p.update(expires=p["created"]),
    "shards out of order": lambda d, p: p["shards"].reverse(),
    "a shard twice": lambda d, p: p["shards"].append(p["shards"][1]),
    "another shard id": lambda d, p: p["shards"][0].update(shard_id=3),
    "parts out of order": lambda d, p: p["shards"][0]["parts"].reverse(),
    "a part twice": lambda d, p: p["shards"][0]["parts"].append(p["shards"][0]["parts"][-1]),
    "a part too many": lambda d, p: p["shards"][0]["parts"][2].update(part_id=3),
    "a silent gap": lambda d, p: (p["shards"][0]["parts"].pop(1), d["subject"].pop(1)),
    "a silent header": lambda d, p: (p["shards"][1].update(state_header=None), d["subject"].pop()),
    "a silent torrent": lambda d, p: p["shards"][0].update(torrent=None),
    "silent block headers": lambda d, p: p.update(block_headers=[]),
    "one block header": lambda d, p: p["block_headers"].pop(),
    "missing and there": lambda d, p: p["missing"].append({"kind": "state_part", "shard_id": 0, "part_id": 1, "reason": ""}),
    "a listed shard missing": lambda d, p: p["missing"][0].update(shard_id=0),
    "an unknown kind missing": lambda d, p: p["missing"][0].update(kind="other"),
    "a subject missing": lambda d, p: d["subject"].pop(),
    "a subject too many": lambda d, p: d["subject"].append({"name": "other", "digest": {"sha256": "00" * 32}}),
    "a digest too short": lambda d, p: d["subject"][0]["digest"].update(sha256="00"),
    "no digest": lambda d, p: d["subject"][0].update(digest={"md5": "00" * 16}),
    "an object too large": lambda d, p: p["shards"][0]["parts"][0].update(size=1 << 31),
    "a negative size": lambda d, p: p["shards"][0]["parts"][0].update(size=-1),
    "a size with a fraction": lambda d, p: p["shards"][0]["parts"][0].update(size="1.5"),
    "another torrent name": lambda d, p: p["shards"][0]["torrent"].update(name="shard_id=1"),
    "a crooked piece length": lambda d, p: p["shards"][0]["torrent"].update(piece_length=20_000),
    "a shard as its own parent": lambda d, p: p["shards"][0].update(parent_shard_uid=p["shards"][0]["shard_uid"]),
    "a parent that is no shard": lambda d, p: p["shards"][0].update(parent_shard_uid="0"),
    "a parent of null": lambda d, p: p["shards"][0].update(parent_shard_uid=None),
    "a short info hash": lambda d, p: p["shards"][0]["torrent"].update(info_hash_v1="ab"),
    "a secret in a mirror": lambda d, p: p.update(mirrors=["https://user:password@host/"]),
    "a mirror in a file": lambda d, p: p.update(mirrors=["file:///etc"]),
    "a web seed with a query": lambda d, p: p.update(web_seeds=["https://host/?sig=1/"]),
    "a web seed without a slash": lambda d, p: p.update(web_seeds=["https://host/x"]),
    "too many mirrors": lambda d, p: p.update(mirrors=["https://host/"] * 65),
    "a line break for people": lambda d, p: p.update(producer_version="a\nb"),
    "a block header that is no base64": lambda d, p: p.update(block_headers=["?", "?"]),
    "base64 with loose ends": lambda d, p: p.update(block_headers=["AB==", "AA=="]),
}


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_manifest_is_refused(change: Callable[[dict[str, Any], dict[str, Any]], object]) -> None:
    """Each damage alone is enough, and the complaint names the document."""
    document = json.loads(make_manifest().to_payload())
    change(document, document["predicate"])
    with pytest.raises(ManifestError, match="test"):
        Manifest.from_payload(encode_json(document), "test")


def test_absent_parts_cost_nothing() -> None:
    """A number of parts is a number: what is said to be missing is compared with it in proportion to what the document says."""
    document = json.loads(make_manifest().to_payload())
    shard = document["predicate"]["shards"][0] | {"num_parts": 100_000, "parts": [], "state_header": None, "torrent": None}
    document["predicate"]["shards"] = [shard | {"shard_id": number, "shard_uid": f"s{number}.v1"} for number in range(60)]
    document["subject"] = []
    payload = encode_json(document)
    tracemalloc.start()
    try:
        with pytest.raises(ManifestError, match="said to be missing differ"):
            Manifest.from_payload(payload, "test")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 * len(payload)


def test_every_absent_part_is_said_to_be_missing() -> None:
    """One that is not, among very many that are, is named, and so is one that is there."""
    manifest = _sparse_manifest()
    shard = replace(manifest.shards[0], num_parts=2_000, parts=())
    others = tuple(found for found in manifest.missing if found.kind is not MissingKind.STATE_PART)
    absent = tuple(MissingObject(MissingKind.STATE_PART, "", 0, idx) for idx in range(2_000))
    sparse = replace(manifest, shards=(shard, *manifest.shards[1:]), missing=(*others, *absent))
    payload = sparse.to_payload()
    assert not Manifest.from_payload(payload, "test").is_complete
    for change, named in ((b'"part_id":1500', b'"part_id":1501'), (b'"part_id":1500', b'"part_id":2000')):
        with pytest.raises(ManifestError, match="0, 1500"):
            Manifest.from_payload(payload.replace(change, named), "test")


def test_a_field_that_is_there_twice_is_refused() -> None:
    """Parsers differ in which of the two they take, so a signature over both means nothing."""
    payload = make_manifest().to_payload()
    assert payload.count(b'"revision":1,') == 1
    with pytest.raises(ManifestError, match="twice"):
        Manifest.from_payload(payload.replace(b'"revision":1,', b'"revision":2,"revision":1,'), "test")


def test_a_manifest_that_would_be_refused_is_not_written() -> None:
    """The writer asserts what the reader demands."""
    manifest = make_manifest()
    with pytest.raises(AssertionError):
        replace(manifest, missing=(), block_headers=()).to_payload()
    with pytest.raises(AssertionError):
        replace(manifest, created=manifest.created + timedelta(microseconds=1)).to_payload()


def test_urls_are_checked_before_they_are_listed() -> None:
    """A user's bad URL is a usage error, and its secret is not repeated."""
    check_urls(["https://host/x", "s3://bucket/x"], ["https://host/"], ["udp://host:1/announce"])
    for mirrors, web_seeds, trackers in [(["https://u:secret@host/"], [], []), ([], ["https://host/x"], []), ([], [], ["ftp://host"])]:
        with pytest.raises(InvalidInputError) as caught:
            check_urls(mirrors, web_seeds, trackers)
        assert "secret" not in str(caught.value)


POINTER = LatestPointer("testnet", 7, CryptoHash(b"\x11" * 32), 2, digest("manifest"))


def test_a_pointer_comes_back() -> None:
    """Payload and value are two forms of one thing; unknown fields are ignored."""
    assert LatestPointer.parse(POINTER.to_bytes(), "test") == POINTER
    document = json.loads(POINTER.to_bytes()) | {"added": 1}
    assert LatestPointer.parse(json.dumps(document).encode(), "test") == POINTER
    assert document["manifest"] == POINTER.layout.manifest


@pytest.mark.parametrize(
    ("field", "value"), [("manifest", "elsewhere"), ("format", "x"), ("revision", 0), ("manifest_sha256", "x"), ("epoch_id", "0")]
)
def test_a_damaged_pointer_is_refused(field: str, value: object) -> None:
    """A pointer that leads elsewhere is not followed."""
    with pytest.raises(ManifestError, match="test"):
        LatestPointer.parse(json.dumps(json.loads(POINTER.to_bytes()) | {field: value}).encode(), "test")


def test_a_pointer_moves_forward_only() -> None:
    """To a later epoch, or to a later revision of the same."""
    assert replace(POINTER, epoch_height=8, epoch_id=CryptoHash(b"\x12" * 32), revision=1).supersedes(POINTER)
    assert replace(POINTER, revision=3).supersedes(POINTER)
    assert not POINTER.supersedes(POINTER)
    assert not replace(POINTER, epoch_height=6, revision=9).supersedes(POINTER)
    assert not replace(POINTER, epoch_id=CryptoHash(b"\x12" * 32), revision=3).supersedes(POINTER)
    assert not replace(POINTER, chain_id="mainnet", revision=3).supersedes(POINTER)
