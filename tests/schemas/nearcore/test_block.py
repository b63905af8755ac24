"""Block and chunk headers: hashes of the real chain come out, and damage is found."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.near.node.node_columns import BLOCK, BLOCK_HEADER, CHUNKS
from pipelines.near.node.rocksdb_reader import RocksDbReader
from schemas.errors import IntegrityError
from schemas.ids import CryptoHash
from schemas.nearcore.block import (
    BlockHeader,
    chunk_headers_root,
    decode_block_chunks,
    decode_block_header,
    header_prev_height,
    read_chunk_header,
)
from schemas.nearcore.borsh import BorshReader, BorshWriter
from tests.support.blocks import encode_block_header, encode_chunk_header, hash_of
from tests.support.nodes import localnet_home


def real_vectors(shared_fixtures: Path) -> list[dict[str, Any]]:
    """Return real headers as nodes show them."""
    vectors: list[dict[str, Any]] = json.loads((shared_fixtures / "real" / "blocks_with_chunks.json").read_text())["vectors"]
    return vectors


@pytest.fixture(scope="module")
def localnet_headers() -> dict[bytes, bytes]:
    """All headers of the real node's chain."""
    with RocksDbReader(localnet_home() / "data", (BLOCK_HEADER,)) as reader:
        return dict(row for rows in reader.scan(BLOCK_HEADER, b"", None) for row in rows)


def test_headers_of_the_real_chain_have_their_hashes(shared_fixtures: Path) -> None:
    """Of blocks and of chunks, built from what nodes show of them."""
    vectors = real_vectors(shared_fixtures)
    check_block_headers(vectors)
    check_chunk_headers(vectors)


def check_block_headers(vectors: list[dict[str, Any]]) -> None:
    """V3, V4 and V5."""
    versions = set()
    for vector in vectors:
        if "header" in vector:
            shown = vector["header"]
            header = decode_block_header(encode_block_header(shown, vector["header_version"]), vector["id"])
            assert header.hash == hash_of(shown["hash"])
            assert header.prev_hash == hash_of(shown["prev_hash"])
            assert header.epoch_id == hash_of(shown["epoch_id"])
            assert header.next_epoch_id == hash_of(shown["next_epoch_id"])
            assert header.chunk_headers_root == hash_of(shown["chunk_headers_root"])
            assert header.prev_state_root == hash_of(shown["prev_state_root"])
            assert (header.height, header.timestamp_ns) == (shown["height"], int(shown["timestamp_nanosec"]))
            versions.add(header.version)
    assert versions == {3, 4, 5}


def check_chunk_headers(vectors: list[dict[str, Any]]) -> None:
    """V1, V3.2, V3.3 and V3.4, and their Merkle root where the whole block is there."""
    seen = set()
    for vector in vectors:
        encoded = [
            encode_chunk_header(chunk, version)
            for chunk, version in zip(vector["chunks"], vector["chunk_header_versions"] * len(vector["chunks"]), strict=False)
        ]
        chunks = [read_chunk_header(BorshReader(data), data) for data in encoded]
        for shown, chunk in zip(vector["chunks"], chunks, strict=True):
            assert chunk.chunk_hash == hash_of(shown["chunk_hash"])
            assert chunk.prev_state_root == hash_of(shown["prev_state_root"])
            assert chunk.prev_block_hash == hash_of(shown["prev_block_hash"])
            assert (chunk.shard_id, chunk.height_included) == (shown["shard_id"], shown.get("height_included", 0))
        seen.update(vector["chunk_header_versions"])
        if "header" in vector:
            assert chunk_headers_root(chunks) == hash_of(vector["header"]["chunk_headers_root"])
            header = decode_block_header(encode_block_header(vector["header"], vector["header_version"]), vector["id"])
            body = BorshWriter().u32(len(encoded)).fixed(b"".join(encoded)).to_bytes()
            assert list(decode_block_chunks(b"\2" + header.encoded + body, header, "V3")) == chunks
            assert list(decode_block_chunks(b"\3" + header.encoded + b"\1" + body, header, "V4")) == chunks
    assert seen >= {"V1", "V3.2", "V3.3", "V3.4"}


def test_all_headers_of_a_real_database_hash_to_their_key(localnet_headers: dict[bytes, bytes]) -> None:
    """Every BlockHeader row of the localnet."""
    assert len(localnet_headers) == 246
    for key, row in localnet_headers.items():
        assert decode_block_header(row, "localnet").hash == key


def test_all_headers_of_a_real_database_say_their_parents_height(localnet_headers: dict[bytes, bytes]) -> None:
    """Those whose parent is there too; a header of a version that does not say it, or is not known, says none."""
    headers = {key: decode_block_header(row, "row") for key, row in localnet_headers.items()}
    heights = [(header_prev_height(header), headers[header.prev_hash].height) for header in headers.values() if header.prev_hash in headers]
    assert len(heights) > 100 and all(said == height for said, height in heights)
    some = next(iter(headers.values()))
    assert [header_prev_height(replace(some, version=version)) for version in (1, 2, 99)] == [None] * 3


def test_all_chunk_headers_of_a_real_database_are_in_its_chunks_column(localnet_headers: dict[bytes, bytes]) -> None:
    """The recomputed chunk hashes of every Block row are keys of Chunks."""
    with RocksDbReader(localnet_home() / "data", (BLOCK, CHUNKS)) as reader:
        blocks = [row for rows in reader.scan(BLOCK, b"", None) for row in rows]
        assert len(blocks) == 218
        for key, row in blocks:
            header = decode_block_header(localnet_headers[key], "localnet")
            for chunk in decode_block_chunks(row, header, "localnet"):
                assert chunk.height_created == 0 or reader.get(CHUNKS, chunk.chunk_hash) is not None


@given(data=st.data())
def test_a_changed_header_never_keeps_its_hash(localnet_headers: dict[bytes, bytes], data: st.DataObject) -> None:
    """Whatever byte before the signature is changed, the expected hash is not met."""
    key = data.draw(st.sampled_from(sorted(localnet_headers)[:5]))
    row = bytearray(localnet_headers[key])
    position = data.draw(st.integers(1, len(row) - 66))
    row[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(IntegrityError):
        decode_block_header(bytes(row), "changed", CryptoHash(key))


@given(length=st.integers(0, 400))
def test_a_truncated_header_is_malformed(localnet_headers: dict[bytes, bytes], length: int) -> None:
    """No index errors, whatever is missing."""
    key, row = min(localnet_headers.items())
    with pytest.raises(IntegrityError):
        decode_block_header(row[:length], "truncated", CryptoHash(key))


@pytest.mark.parametrize(("key_type", "length"), [(0, 64), (1, 65)])
@pytest.mark.parametrize("version", [1, 2, 6, 9])
def test_headers_of_any_version_hash_by_their_parts(version: int, key_type: int, length: int) -> None:
    """Versions whose later fields are not known are read too, with both kinds of signature."""
    prev_hash, lite, rest = b"\5" * 32, bytes(range(208)), bytes(range(256)) * 2
    row = bytes([version - 1]) + prev_hash + lite + rest + bytes([key_type]) + b"\xee" * length
    header = decode_block_header(row, "made up")
    inner = sha256(sha256(lite).digest() + sha256(rest).digest()).digest()
    assert header.hash == sha256(inner + prev_hash).digest()
    assert header.chunk_headers_root == (rest[32:64] if version < 4 else rest[64:96])


def test_where_both_signatures_fit_the_expected_hash_decides() -> None:
    """A last byte of 1 before an ed25519 signature looks like the longer signature's type."""
    rest = bytes(100) + b"\1"
    row = b"\4" + bytes(32) + bytes(208) + rest + b"\0" + b"\xee" * 64

    def expected(hashed_rest: bytes) -> CryptoHash:
        inner = sha256(sha256(bytes(208)).digest() + sha256(hashed_rest).digest()).digest()
        return CryptoHash(sha256(inner + bytes(32)).digest())

    for candidate in (expected(rest), expected(rest[:-1])):
        assert decode_block_header(row, "ambiguous", candidate).hash == candidate


def test_a_block_with_another_header_is_refused(localnet_headers: dict[bytes, bytes]) -> None:
    """The Block row must begin with the header that was checked."""
    first, second = sorted(localnet_headers.items())[:2]
    header: BlockHeader = decode_block_header(first[1], "first")
    with pytest.raises(IntegrityError, match="another header"):
        decode_block_chunks(b"\3" + second[1] + b"\1\0\0\0\0", header, "second")


@pytest.mark.parametrize("tag", [3, 255])
def test_an_unknown_version_of_a_chunk_header_is_refused(tag: int) -> None:
    """What can't be hashed can't be checked."""
    with pytest.raises(IntegrityError, match="known version"):
        read_chunk_header(BorshReader(bytes([tag]) + bytes(400)), bytes([tag]) + bytes(400))
