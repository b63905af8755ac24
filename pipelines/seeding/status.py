"""What a seeder tells about itself: values for people, events, health and metrics. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

from schemas.published.object_layout import EpochLayout


class ShardPhase(StrEnum):
    """How far a shard is."""

    WAITING = "waiting"
    VERIFYING = "verifying"
    DOWNLOADING = "downloading"
    SEEDING = "seeding"
    FAILED = "failed"
    """Tried again at the next poll."""


@dataclass(frozen=True, slots=True)
class ShardKey:
    """A shard of an epoch."""

    layout: EpochLayout
    shard_id: int

    @property
    def epoch_height(self) -> int:
        """The epoch's height."""
        return self.layout.epoch_height


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """One shard."""

    key: ShardKey
    phase: ShardPhase
    parts_total: int
    bytes_total: int
    parts_complete: int = 0
    """Verified and under their names."""
    bytes_complete: int = 0
    bytes_downloaded: int = 0
    """Of parts and deltas, from the bucket, since this process began."""
    peers: int = 0
    upload_bytes_per_s: int = 0
    bytes_uploaded: int = 0
    """Since the shard was first seeded here, earlier processes included."""
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the status as JSON values."""
        return {
            "epoch_height": self.key.epoch_height,
            "epoch_id": str(self.key.layout.epoch_id),
            "shard_id": self.key.shard_id,
            "phase": str(self.phase),
            "parts_complete": self.parts_complete,
            "parts_total": self.parts_total,
            "bytes_complete": self.bytes_complete,
            "bytes_total": self.bytes_total,
            "bytes_downloaded": self.bytes_downloaded,
            "peers": self.peers,
            "upload_bytes_per_s": self.upload_bytes_per_s,
            "bytes_uploaded": self.bytes_uploaded,
            **({"problem": self.problem} if self.problem else {}),
        }


@dataclass(frozen=True, slots=True)
class ServedShard:
    """What nodes were given of a shard."""

    epoch_height: int
    shard_id: int
    header: bool
    parts: int
    """Different ones."""
    parts_total: int

    @property
    def is_whole(self) -> bool:
        """Whether everything was given."""
        return self.header and self.parts == self.parts_total

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return {
            "epoch_height": self.epoch_height,
            "shard_id": self.shard_id,
            "header": self.header,
            "parts": self.parts,
            "parts_total": self.parts_total,
        }


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """How the seeder stands in nearcore's own network."""

    ports: tuple[int, ...]
    neighbours: int
    announced_epochs: tuple[int, ...]
    requests: Mapping[str, int]
    """By what became of them."""
    messages: Mapping[str, int]
    """Connections and messages by what became of them."""
    bytes_sent: int
    """Of headers and parts."""
    served: tuple[ServedShard, ...] = ()
    """Of shards that are served now, newest epoch first."""
    block_height: int | None = None
    """Of the block before the newest announced epoch's sync block: a node above it needs that epoch no more."""
    requests_by_kind: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """By kind, header or part, and by what became of them."""
    askers: int = 0
    """Peers that asked for state within the last minutes."""
    answers_up_to: tuple[tuple[str, int], ...] = ()
    """Upper bounds in seconds, from the request to the last byte, and how many answers took no longer."""
    answers_total_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the status as JSON values."""
        return {
            "ports": list(self.ports),
            "neighbours": self.neighbours,
            "announced_epochs": list(self.announced_epochs),
            "requests": dict(self.requests),
            "messages": dict(self.messages),
            "bytes_sent": self.bytes_sent,
            "served": [shard.to_json() for shard in self.served],
        }


@dataclass(frozen=True, slots=True)
class SeedStatus:
    """The seeder at one moment."""

    chain_id: str
    listen_port: int
    shards: tuple[ShardStatus, ...]
    """Newest epoch first, then by shard id."""
    polled_at: float | None
    """Unix time of the last look at the bucket that succeeded, in seconds; None before the first."""
    poll_problem: str
    """Why the last look at the bucket, or a manifest in it, failed; empty if none did."""
    pieces_refused: int
    """Pieces whose bytes on the disk turned out wrong."""
    near_peer: PeerStatus | None = None
    """None where it is no peer of nearcore's network."""

    @property
    def is_complete(self) -> bool:
        """Whether all that is wanted is seeded."""
        return bool(self.shards) and all(shard.phase is ShardPhase.SEEDING for shard in self.shards)

    def to_json(self) -> dict[str, Any]:
        """Return the status as JSON values."""
        return {
            "chain_id": self.chain_id,
            "listen_port": self.listen_port,
            "complete": self.is_complete,
            "peers": sum(shard.peers for shard in self.shards),
            "upload_bytes_per_s": sum(shard.upload_bytes_per_s for shard in self.shards),
            "polled_at": self.polled_at,
            "poll_problem": self.poll_problem,
            "pieces_refused": self.pieces_refused,
            "shards": [shard.to_json() for shard in self.shards],
            **({} if self.near_peer is None else {"near_peer": self.near_peer.to_json()}),
        }


@dataclass(frozen=True, slots=True)
class SeedEvent:
    """Something that happened once."""

    kind: str
    """epoch_found, epoch_dropped, epoch_announced, near_peer, shard_seeding, shard_failed, poll_failed, manifest_refused, memory_ignored."""
    message: str
    """For people."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Plain JSON values."""


OnEvent: TypeAlias = Callable[[SeedEvent], None]
"""Called from several threads."""
