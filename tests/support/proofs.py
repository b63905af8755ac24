"""Proofs for tests: of small tries, and by others."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipelines.kernel.choice import choose_kernel
from pipelines.proving.make_proof import make_claim
from pipelines.proving.node_readers import NodesByHash
from pipelines.proving.wanted_record import WantedRecord
from schemas.ids import CryptoHash, ShardUId
from schemas.nearcore.state_part import decode_partial_state
from schemas.published.proof import ShardChoice, TrieProof
from tests.support.records import parts_of

_FILE = Path(__file__).resolve().parents[1] / "fixtures" / "proofs" / "view_state_proofs.json"


@lru_cache
def proofs_by_others() -> dict[str, Any]:
    """Return the committed answers of nodes and nearcore's own test of proofs."""
    document = json.loads(_FILE.read_text())
    assert isinstance(document, dict)
    return document


def decode_nodes(texts: Iterable[str]) -> tuple[bytes, ...]:
    """Return nodes that are given in base64."""
    return tuple(base64.b64decode(text) for text in texts)


def small_trie(pairs: Sequence[tuple[bytes, bytes]]) -> tuple[CryptoHash, NodesByHash]:
    """Return the state root of some records, and all nodes and values."""
    shard = parts_of(choose_kernel("auto"), tuple(sorted(dict(pairs).items())), 1)
    return shard.state_root, NodesByHash(decode_partial_state(shard.parts[0]), "a small trie")


def small_proof(pairs: Sequence[tuple[bytes, bytes]], wanted: WantedRecord) -> TrieProof:
    """Return a proof from a small trie, without headers."""
    state_root, read = small_trie(pairs)
    claim, nodes = make_claim(read, state_root, wanted)
    return TrieProof(
        chain_id="test",
        epoch_height=7,
        epoch_id=None,
        shard_uid=ShardUId(0, 0),
        shard_chosen_by=ShardChoice.ONLY_SHARD,
        state_root=state_root,
        block_hash=None,
        claim=claim,
        nodes=nodes,
        chain=None,
    )
