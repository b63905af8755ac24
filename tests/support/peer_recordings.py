"""Recorded sessions between peers of nearcore's network: tests/fixtures/p2p, and all that lie beside the project where they do."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.nearpeer.node_key import NodeKey
from schemas.ids import CryptoHash
from schemas.nearcore.peer.identity import PeerId
from tests.conftest import SHARED_FIXTURES

RECORDINGS = Path(__file__).resolve().parents[1] / "fixtures" / "p2p"


@dataclass(frozen=True, slots=True)
class RecordedFrame:
    """One frame, whole."""

    at_s: float
    """Since 1970."""
    to_listener: bool
    data: bytes


@dataclass(frozen=True, slots=True)
class RecordedConnection:
    """The frames of one connection, in the order in which they came. Large ones are left out."""

    name: str
    frames: tuple[RecordedFrame, ...]


@cache
def recorded_connections() -> tuple[RecordedConnection, ...]:
    """Return every connection of every recording."""
    return tuple(_connections())


def _connections() -> Iterator[RecordedConnection]:
    beside = sorted((SHARED_FIXTURES / "p2p").glob("*.json.gz"))
    for file in [*sorted(RECORDINGS.glob("*.json.gz")), *beside]:
        document: Any = json.loads(gzip.decompress(file.read_bytes()))
        started = document["started"] if isinstance(document, dict) else 0
        for number, connection in enumerate(document["connections"] if isinstance(document, dict) else document):
            frames = (
                RecordedFrame(started + frame["t"], frame["dir"] == "to_listener", bytes.fromhex(frame["hex"]))
                for frame in connection["frames"]
                if "hex" in frame
            )
            yield RecordedConnection(f"{file.parent.name}/{file.stem}:{number}", tuple(frames))


@cache
def recorded_keys() -> dict[PeerId, NodeKey]:
    """Return the keys of all who speak: of the peers that were made for the recordings, and of neard's test nodes."""
    seeds = [name.ljust(32).encode() for name in ("node0", "node1", "node2")]
    for file in [*RECORDINGS.glob("*.json.gz"), *(SHARED_FIXTURES / "p2p").glob("*.json.gz")]:
        document = json.loads(gzip.decompress(file.read_bytes()))
        seeds += [bytes.fromhex(key["seed_hex"]) for key in (document["keys"] if isinstance(document, dict) else ())]
    return {key.peer_id: key for key in map(NodeKey.from_seed, dict.fromkeys(seeds))}


def named_key(name: str) -> NodeKey:
    """Return a key made of a name."""
    return NodeKey.from_seed(hashlib.sha256(name.encode()).digest())


def named_hash(name: str) -> CryptoHash:
    """Return a hash made of a name."""
    return CryptoHash(hashlib.sha256(name.encode()).digest())
