"""Decoders of what is published in a bucket, and of what is remembered beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from random import Random
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from jobs.inspect_objects import _arrow_file, object_document
from jobs.inspect_objects import _torrent as _torrent_document
from pipelines.bittorrent.library import import_libtorrent
from pipelines.bittorrent.magnet import magnet_link, parse_magnet
from pipelines.bittorrent.published_torrent import PublishedTorrent, check_torrent, read_torrent
from pipelines.bittorrent.torrents import build_torrent, recompose_torrent
from pipelines.fetching.epoch_location import parse_epoch_url
from pipelines.nearpeer.node_key_file import _parse as parse_node_key
from pipelines.producing.publish.key_file import _parse as parse_key_file
from pipelines.producing.publish.signing import sign_payload
from pipelines.producing.watch.watch_decisions import EpochState, WatchedEpoch, WatchLedger
from pipelines.proving.verify_trie_proof import verify_trie_proof
from pipelines.proving.wanted_record import WantedRecord
from pipelines.trust.freshness import AcceptedManifests
from pipelines.trust.signatures import TrustRule, agreed_signers
from schemas.errors import IntegrityError
from schemas.ids import CryptoHash, PartId, ShardUId, base58_encode
from schemas.ipc_message import _field, _header, _offset, decompressed_bytes, record_batch_rows, schema_of
from schemas.json_document import decode_base64, decode_json, encode_base64, encode_json
from schemas.nearcore.key_file import read_key_file
from schemas.nearcore.merkle import MerklePathItem
from schemas.nearcore.shard_layout import ShardLayout
from schemas.published.catalogue import Catalogue, CatalogueEpoch, PublishedListing
from schemas.published.claim import Claim, Holder, ProducerLease
from schemas.published.delta_object import (
    Row,
    _read_batches,
    decode_delta_object,
    encode_delta_object,
)
from schemas.published.delta_statement import DeltaEnd, DeltaStatement
from schemas.published.dsse import parse_envelope
from schemas.published.in_toto import decode_in_toto, parse_statement_envelope
from schemas.published.latest_pointer import LatestPointer
from schemas.published.lease import ReaderLease
from schemas.published.manifest import Manifest
from schemas.published.manifest_delta import ManifestDelta
from schemas.published.manifest_shard import ManifestPart, ManifestShard, ManifestTorrent
from schemas.published.manifest_tables import ManifestTables
from schemas.published.object_layout import EpochLayout, parse_epoch_folder, parse_object_name, part_file_name, shard_folder_name
from schemas.published.proof import TrieProof
from schemas.published.proof_chain import ChainEvidence
from schemas.published.public_key import PublicKey
from schemas.published.scrub_state import ScrubState
from schemas.published.shard_statement import ShardStatement
from schemas.published.tables_statement import TablesStatement
from schemas.published.torrent import LEAF_BYTES, piece_hashes
from tests.fuzz.decoder import Decoder, json_with
from tests.fuzz.mutation import mixed, mutate_bencode, mutate_json, mutate_text
from tests.fuzz.nearcore import chunk_headers, localnet_headers
from tests.support.proofs import small_proof
from tests.support.published_values import make_delta_statement, make_empty_statement, make_manifest, make_statement, make_tables_statement

NOW = datetime(2026, 11, 23, 8, 30, tzinfo=UTC)
LAYOUT = EpochLayout("testnet", 7, CryptoHash(b"\x11" * 32))
OTHER_LAYOUT = EpochLayout("testnet", 8, CryptoHash(b"\x12" * 32))
_JSON = mixed(mutate_json)


@lru_cache
def _key_file() -> bytes:
    """A key file of a seed that everybody knows."""
    seed = bytes(range(32))
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return json.dumps({"public_key": str(PublicKey(public)), "secret_key": "ed25519:" + base58_encode(seed + public)}).encode()


@lru_cache
def _rule() -> TrustRule:
    return TrustRule((parse_key_file(_key_file(), "key").public_key,))


def _manifests() -> list[bytes]:
    plain = make_manifest()
    layout = ShardLayout(kind="V2", version=1, shard_ids=(5, 0, 1), boundary_accounts=("aurora", "near"))
    deltas = (ManifestDelta(0, 6, CryptoHash(b"\x66" * 32), "ab" * 32, 3, 700),)
    tables = ManifestTables("ab" * 32, "gs://bucket/tables")
    return [plain.to_payload(), replace(plain, shard_layout=layout, deltas=deltas, tables=tables).to_payload()]


def _envelopes() -> list[bytes]:
    signer = parse_key_file(_key_file(), "key")
    payloads = [*_manifests(), make_statement().to_payload(), b"{}"]
    return [sign_payload(payload, [signer]).to_bytes() for payload in payloads] + [sign_payload(payloads[0], []).to_bytes()]


def _read_envelope(data: bytes) -> object:
    envelope = parse_statement_envelope(data, "fuzz")
    envelope.to_bytes()
    return agreed_signers([envelope], _rule(), "fuzz")


def _mutate_envelope(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """Change the envelope, or the payload inside of it, signed again."""
    if random.random() < 0.5:
        return _JSON(random, data, corpus)
    document = json.loads(data)
    payload = mutate_json(random, decode_base64(document["payload"], 1 << 24, ""), [b"{}"])
    if random.random() < 0.5:
        return sign_payload(payload, [parse_key_file(_key_file(), "key")]).to_bytes()
    return encode_json({**document, "payload": encode_base64(payload)})


def _read_manifest(data: bytes) -> object:
    manifest = Manifest.from_payload(data, "fuzz")
    manifest.to_payload()
    PublishedListing.of(manifest, "ab" * 32)
    return manifest


def _statement(data: bytes) -> object:
    statement = ShardStatement.from_payload(data, "fuzz")
    assert statement.to_payload() == data
    return statement


def _delta_statement(data: bytes) -> object:
    statement = DeltaStatement.from_payload(data, "fuzz")
    assert statement.to_payload() == data
    return statement


def _delta_objects() -> list[bytes]:
    rows: list[Row] = [(bytes([number]), None if number % 3 == 0 else bytes(number * 20)) for number in range(60)]
    return [encode_delta_object([rows[:40], rows[40:]], {"chain_id": "testnet"}), encode_delta_object([rows[:1]], {})]


def _catalogues() -> list[bytes]:
    listing = PublishedListing.of(make_manifest(), "ab" * 32)
    epochs = (
        CatalogueEpoch(7, LAYOUT.epoch_id, listing),
        CatalogueEpoch(8, OTHER_LAYOUT.epoch_id, listing, leaving_since=NOW),
        CatalogueEpoch.damaged(EpochLayout("testnet", 9, LAYOUT.epoch_id), "no manifest"),
    )
    return [Catalogue("testnet", epochs).to_bytes(), Catalogue("testnet").to_bytes()]


def _catalogue(data: bytes) -> object:
    catalogue = Catalogue.parse(data, "fuzz")
    for epoch in catalogue.epochs:
        catalogue.layout(epoch)
    return Catalogue.parse(catalogue.to_bytes(), "fuzz")


def _claims() -> list[bytes]:
    holder = Holder("host", 17, "ab" * 16, "cd" * 32, 99)
    lease = ProducerLease(holder, (0, 1), NOW, NOW, 60.0)
    return [Claim(LAYOUT, (lease, ProducerLease(holder, (2,), NOW, NOW, 1.5))).to_bytes(), Claim(LAYOUT, ()).to_bytes()]


def _proofs() -> list[bytes]:
    pairs = [(b"\x00alice.near", b"a" * 80), (b"\x00bob.near", b"b" * 90), (b"\x01alice.near", b"code")]
    wanted = [
        WantedRecord("alice.near", b"\x00alice.near"),
        WantedRecord("carol.near", b"\x00carol.near"),
        WantedRecord(None, b"\x00", is_prefix=True),
    ]
    proofs = [small_proof(pairs, one) for one in wanted]
    return [proof.to_bytes() for proof in proofs] + [replace(proofs[0], chain=_evidence(), epoch_height=None).to_bytes()]


def _evidence() -> ChainEvidence:
    block, child = localnet_headers()[:2]
    return ChainEvidence(chunk_headers()[0], (MerklePathItem(CryptoHash(b"\1" * 32), is_left=True),), block, child)


def _reseal_proof(document: Any) -> object:
    body = {name: value for name, value in document.items() if name != "sha256"}
    return {**body, "sha256": hashlib.sha256(encode_json(body)).hexdigest()}


def _mutate_proof(random: Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    return json_with(_reseal_proof)(random, data, corpus) + b"\n"


def _proof(data: bytes) -> object:
    proof = TrieProof.parse(data, "fuzz")
    try:
        return verify_trie_proof(proof, "fuzz")
    except IntegrityError as error:
        return error


def _ledgers() -> list[bytes]:
    epochs = (
        WatchedEpoch(7, LAYOUT.epoch_id, 1700000000.5, CryptoHash(b"\2" * 32), EpochState.PUBLISHED),
        WatchedEpoch(8, OTHER_LAYOUT.epoch_id, 1.0),
    )
    return [WatchLedger(6, epochs).to_bytes(), WatchLedger(-1).to_bytes()]


def _memories() -> list[bytes]:
    memory = AcceptedManifests("testnet").with_accepted(_rule().keys, make_manifest(), "ab" * 32)
    return [memory.to_bytes(), AcceptedManifests("testnet").to_bytes()]


@lru_cache
def _torrent_shard() -> tuple[ManifestShard, bytes]:
    files = []
    parts = []
    for idx, size in enumerate((70_000, 5, 16_384)):
        pieces = piece_hashes(bytes([idx]) * size, LEAF_BYTES)
        files.append((part_file_name(PartId(idx, 3)), size, pieces))
        parts.append(ManifestPart(idx, size, "ab" * 32, pieces.v2_root.hex()))
    torrent = build_torrent(shard_folder_name(0), files, LEAF_BYTES)
    named = ManifestTorrent(torrent.info_hash_v1.hex(), torrent.info_hash_v2.hex(), LEAF_BYTES)
    return ManifestShard(ShardUId(1, 0), CryptoHash(b"\x33" * 32), 3, "00" * 32, tuple(parts), None, named), torrent.data


def _torrents() -> list[bytes]:
    shard, data = _torrent_shard()
    return [data, recompose_torrent(read_torrent(data, shard, "fuzz"), ["https://seed.example/x/"], ["udp://tracker.example:1/announce"])]


def _torrent(data: bytes) -> object:
    shard = _torrent_shard()[0]
    with suppress(RuntimeError):
        hashes = import_libtorrent().load_torrent_buffer(data).ti.info_hashes()
        # As if the manifest named this very torrent, so that what follows the comparison of hashes is reached.
        named = ManifestTorrent(hashes.v1.to_bytes().hex(), hashes.v2.to_bytes().hex(), LEAF_BYTES)
        shard = replace(shard, torrent=named)
    torrent = read_torrent(data, shard, "fuzz")
    torrent.parameters()
    made = recompose_torrent(torrent, (), ())
    again = read_torrent(made, shard, "fuzz")
    assert recompose_torrent(again, (), ()) == made
    return again


def _text(data: bytes) -> str:
    """The text of an argument: Python gives bytes that are no text as lone surrogates."""
    return data.decode("utf-8", "surrogateescape")


def _object_name(data: bytes) -> object:
    name = _text(data)
    found = parse_object_name(name)
    return found if found is not None else (parse_epoch_folder(name), parse_epoch_url(f"gs://bucket/{name}"))


def _object_names() -> list[bytes]:
    names = [
        LAYOUT.manifest,
        LAYOUT.claim,
        LAYOUT.scrub,
        LAYOUT.state_part(3, PartId(1, 7)),
        LAYOUT.state_header(3),
        LAYOUT.shard_statement(3),
        LAYOUT.evidence(3, b"\1" * 32),
        LAYOUT.torrent(3),
        LAYOUT.delta_statement(LAYOUT.epoch_id, 3),
        LAYOUT.delta(LAYOUT.epoch_id, 3, 1),
        LAYOUT.manifest_revision(2),
        "chain_id=testnet/latest.json",
        "a/folder",
        LAYOUT.folder,
    ]
    return [name.encode() for name in names]


def _magnets() -> list[bytes]:
    return [
        magnet_link("ab" * 20, "cd" * 32, "shard_id=0", (), ("udp://tracker.example:1/announce",)).encode(),
        f"magnet:?xt=urn:btih:{'ab' * 20}&x.pe=127.0.0.1:6881&x.pe=[::1]:1".encode(),
    ]


def decoders() -> tuple[Decoder, ...]:
    """Return the table."""
    return (
        Decoder(
            "envelope",
            _read_envelope,
            lambda: _envelopes()[:-1],
            (parse_statement_envelope, parse_envelope, decode_json, decode_base64, agreed_signers),
            _mutate_envelope,
        ),
        Decoder(
            "manifest",
            _read_manifest,
            _manifests,
            (
                Manifest.from_payload,
                ManifestShard.from_json,
                ManifestDelta.from_json,
                ManifestTables.from_json,
                decode_in_toto,
                ShardUId.parse,
            ),
            _JSON,
        ),
        Decoder(
            "shard statement",
            _statement,
            lambda: [make_statement().to_payload(), make_empty_statement().to_payload()],
            (ShardStatement.from_payload,),
            _JSON,
        ),
        Decoder(
            "delta statement",
            _delta_statement,
            lambda: [make_delta_statement().to_payload(), make_delta_statement(1, 0).to_payload()],
            (DeltaStatement.from_payload, DeltaEnd.from_json),
            _JSON,
        ),
        Decoder(
            "delta object",
            lambda data: decode_delta_object(data, "fuzz"),
            _delta_objects,
            (decode_delta_object, _read_batches, decompressed_bytes, schema_of, _header, _offset, _field),
        ),
        Decoder(
            "record batches, shown",
            lambda data: object_document(data, "fuzz", None),
            lambda: [*_delta_objects(), *_torrents()],
            (object_document, _arrow_file, record_batch_rows, _torrent_document),
            mixed(mutate_bencode),
        ),
        Decoder(
            "tables statement",
            lambda data: TablesStatement.from_payload(data, "fuzz").to_payload(),
            lambda: [make_tables_statement().to_payload(), make_tables_statement(raw=False).to_payload()],
            (TablesStatement.from_payload,),
            _JSON,
        ),
        Decoder("catalogue", _catalogue, _catalogues, (Catalogue.parse,), _JSON),
        Decoder("claim", lambda data: Claim.parse(data, "fuzz").to_bytes(), _claims, (Claim.parse,), _JSON),
        Decoder(
            "reader's lease",
            lambda data: ReaderLease.parse(data, "fuzz").to_bytes(),
            lambda: [ReaderLease("host", "fetch", NOW, NOW).to_bytes()],
            (ReaderLease.parse,),
            _JSON,
        ),
        Decoder(
            "latest pointer",
            lambda data: LatestPointer.parse(data, "fuzz").to_bytes(),
            lambda: [LatestPointer("testnet", 7, LAYOUT.epoch_id, 1, "ab" * 32).to_bytes()],
            (LatestPointer.parse,),
            _JSON,
        ),
        Decoder(
            "scrub state",
            lambda data: ScrubState.parse(data, "fuzz").to_bytes(),
            lambda: [ScrubState(5, 250_000, NOW).to_bytes()],
            (ScrubState.parse,),
            _JSON,
        ),
        Decoder(
            "proof", _proof, _proofs, (TrieProof.parse, ChainEvidence.from_json, ChainEvidence.prove, verify_trie_proof), _mutate_proof
        ),
        Decoder(
            "accepted manifests",
            lambda data: AcceptedManifests.parse(data, "testnet", "fuzz").to_bytes(),
            _memories,
            (AcceptedManifests.parse,),
            _JSON,
        ),
        Decoder("watch ledger", lambda data: WatchLedger.parse(data, "fuzz").to_bytes(), _ledgers, (WatchLedger.parse,), _JSON),
        Decoder(
            "key file",
            lambda data: (parse_node_key(data, "fuzz"), parse_key_file(data, "fuzz")),
            lambda: [_key_file()],
            (parse_key_file, parse_node_key, read_key_file),
            _JSON,
        ),
        Decoder(
            "torrent",
            _torrent,
            _torrents,
            (read_torrent, check_torrent, recompose_torrent, PublishedTorrent.parameters),
            mixed(mutate_bencode),
        ),
        Decoder("magnet link", lambda data: parse_magnet(_text(data)), _magnets, (parse_magnet,), mutate_text),
        Decoder("object name", _object_name, _object_names, (parse_object_name, parse_epoch_folder, parse_epoch_url), mutate_text),
        Decoder(
            "public key",
            lambda data: PublicKey.parse(_text(data)),
            lambda: [str(PublicKey(bytes(range(32)))).encode()],
            (PublicKey.parse,),
            mutate_text,
        ),
    )
