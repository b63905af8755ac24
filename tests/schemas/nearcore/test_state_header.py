"""State headers that a real node dumped, tied to block hashes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.near.epoch.node_context import epoch_context_from_node
from schemas.errors import IntegrityError
from schemas.ids import CryptoHash
from schemas.nearcore.state_header import STATE_HEADER_BYTES_MAX, decode_state_header, prove_state_root
from schemas.nearcore.trie_node import decode_trie_node
from tests.support.nodes import localnet, localnet_home


@dataclass(frozen=True)
class Dumped:
    """A header that neard's dumper wrote, and what it belongs to."""

    shard_id: int
    data: bytes = field(repr=False)
    state_root: CryptoHash
    sync_hash: CryptoHash
    block_headers: tuple[bytes, ...] = field(repr=False)


@lru_cache
def dumped(epoch_height: int) -> tuple[Dumped, ...]:
    """Return the headers of an epoch."""
    context = epoch_context_from_node(localnet_home(), str(epoch_height))
    (folder,) = (localnet() / "dump").glob(f"*/epoch_height={epoch_height}/*/headers")
    found = []
    for shard in context.shards:
        assert shard.state_root is not None
        data = (folder / f"shard_id={shard.shard_id}" / "header").read_bytes()
        found.append(Dumped(shard.shard_id, data, shard.state_root, context.sync_hash, context.block_headers))
    return tuple(found)


def newest() -> tuple[Dumped, ...]:
    """Return the headers of the newest epoch that was dumped."""
    return dumped(6)


newest_headers = st.deferred(lambda: st.sampled_from(newest()))


@pytest.mark.parametrize("epoch_height", [5, 6])
def test_real_headers_are_proven_by_the_sync_hash(epoch_height: int) -> None:
    """Shard, state root and memory usage of both epochs whose blocks the node has."""
    for header in dumped(epoch_height):
        proven = prove_state_root(header.data, header.sync_hash, header.block_headers, "dump")
        assert proven.chunk.shard_id == header.shard_id
        assert proven.state_root == header.state_root
        assert proven == decode_state_header(header.data, "dump")
        assert proven.memory_usage > 300_000


def test_headers_of_an_epoch_whose_blocks_are_gone_still_decode() -> None:
    """Their root node hashes to the state root, and has the memory usage that they give."""
    paths: list[Path] = sorted((localnet() / "dump").glob("*/epoch_height=4/*/headers/*/header"))
    assert len(paths) == 4
    for path in paths:
        header = decode_state_header(path.read_bytes(), path.name)
        assert path.parent.name == f"shard_id={header.chunk.shard_id}"


def test_a_header_of_another_epoch_is_not_proven() -> None:
    """Its chunk is in another block."""
    older = dumped(5)
    for old, new in zip(older, newest(), strict=True):
        with pytest.raises(IntegrityError, match="no proof"):
            prove_state_root(old.data, new.sync_hash, new.block_headers, "old")


def test_another_sync_hash_is_not_believed() -> None:
    """The block headers must hash to what is trusted."""
    header = newest()[0]
    with pytest.raises(IntegrityError, match="hash"):
        prove_state_root(header.data, CryptoHash(b"\1" * 32), header.block_headers, "dump")
    with pytest.raises(IntegrityError, match="hash"):
        prove_state_root(header.data, header.sync_hash, header.block_headers[::-1], "dump")
    with pytest.raises(IntegrityError, match="parent"):
        prove_state_root(header.data, header.sync_hash, header.block_headers[:1], "dump")


@given(newest_headers, st.data())
def test_a_changed_chunk_header_is_never_proven(header: Dumped, data: st.DataObject) -> None:
    """Whatever byte of the hashed part is changed: state root, shard, the block that it builds on."""
    changed = bytearray(header.data)
    position = data.draw(st.integers(2, 250))
    changed[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(IntegrityError):
        prove_state_root(bytes(changed), header.sync_hash, header.block_headers, "changed")


@given(newest_headers, st.data())
def test_a_changed_root_node_is_refused(header: Dumped, data: st.DataObject) -> None:
    """The memory usage is as sure as the state root."""
    changed = bytearray(header.data)
    position = data.draw(st.integers(len(changed) - 50, len(changed) - 1))
    changed[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(IntegrityError):
        decode_state_header(bytes(changed), "changed")


@given(st.binary(max_size=300) | st.integers(0, 500).map(lambda length: newest()[0].data[:length]))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    """No other error escapes, whatever is read."""
    with pytest.raises(IntegrityError):
        prove_state_root(data, newest()[0].sync_hash, newest()[0].block_headers, "arbitrary")


@given(newest_headers, st.integers(0, 1 << 13), st.binary(min_size=1, max_size=200))
def test_bytes_that_are_put_in_anywhere_are_refused(header: Dumped, position: int, inserted: bytes) -> None:
    """A header has no room: what is believed of it would else be found behind padding too."""
    position %= len(header.data) + 1
    padded = header.data[:position] + inserted + header.data[position:]
    with pytest.raises(IntegrityError):
        prove_state_root(padded, header.sync_hash, header.block_headers, "padded")


def test_padding_that_looks_like_paths_costs_nothing() -> None:
    """A Merkle path lies in one place: nothing is searched for."""
    header = newest()[0]
    like_paths = b"@\0\0\0" * 8 + b"\0"
    padded = header.data[:700] + like_paths * (1 << 18) + header.data[700:]
    begin_s = time.process_time()
    with pytest.raises(IntegrityError):
        prove_state_root(padded, header.sync_hash, header.block_headers, "padded")
    assert time.process_time() - begin_s < 1.0


def test_a_header_over_the_limit_is_refused_unread() -> None:
    """Its size is looked at before its bytes."""
    with pytest.raises(IntegrityError, match="at most 268435456 bytes"):
        decode_state_header(bytes(STATE_HEADER_BYTES_MAX + 1), "huge")


def test_the_root_node_is_a_trie_node() -> None:
    """What the memory usage is taken from is the node that parts begin with."""
    for header in newest():
        node_length = next(
            length for length in range(8, 1000) if header.data[-8 - length - 4 : -8 - length] == length.to_bytes(4, "little")
        )
        assert decode_trie_node(header.data[-8 - node_length : -8]).memory_usage == decode_state_header(header.data, "dump").memory_usage
