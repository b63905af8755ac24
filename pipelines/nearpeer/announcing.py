"""Which key says which epoch: nearcore keeps one announcement a peer, and only a greater epoch height replaces it.

So two keys take epochs in turn, the even ones and the odd ones: each keeps its announcement for two epochs, and both the newest epoch and
the one before are found. What was announced can't be taken back, and outlives the process: a restart uses the same keys.
Source: nearcore's `chain/network/src/snapshot_hosts/mod.rs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipelines.nearpeer.node_key import NodeKey, holds
from schemas.ids import CryptoHash
from schemas.nearcore.peer.snapshot_host import SHARDS_MAX, SnapshotHost, snapshot_host_digest


@dataclass(frozen=True, slots=True)
class HostedEpoch:
    """An epoch of which all parts and headers of some shards lie verified at hand."""

    epoch_height: int
    announced_hash: CryptoHash
    """Of the block two before the sync block."""
    sync_hash: CryptoHash
    shards: tuple[int, ...]
    """Ascending, at least one."""


@dataclass(slots=True)
class Announcements:
    """What each of this peer's keys has announced."""

    keys: Sequence[NodeKey]
    """One, or two that take epochs in turn."""
    _said: dict[int, SnapshotHost] = field(init=False, default_factory=dict)
    _hosted: dict[int, HostedEpoch] = field(init=False, default_factory=dict)

    def announce(self, epoch: HostedEpoch) -> SnapshotHost | None:
        """Sign an epoch; None where its key has announced it, or a later one, for which there is no other word any more."""
        slot = epoch.epoch_height % len(self.keys)
        last = self._said.get(slot)
        if not 0 < len(epoch.shards) <= SHARDS_MAX or (last is not None and last.epoch_height >= epoch.epoch_height):
            return None
        key = self.keys[slot]
        signature = key.sign(snapshot_host_digest(epoch.announced_hash, epoch.epoch_height, epoch.shards))
        said = SnapshotHost(key.peer_id, epoch.announced_hash, epoch.epoch_height, epoch.shards, signature)
        self._said[slot], self._hosted[slot] = said, epoch
        return said

    def of_key(self, key: NodeKey) -> tuple[SnapshotHost, ...]:
        """Return what a key has announced: one announcement, or none."""
        return tuple(said for said in self._said.values() if said.peer_id == key.peer_id)

    def hosted(self, key: NodeKey, sync_hash: CryptoHash, shard_id: int) -> HostedEpoch | None:
        """Return the epoch that a request to a key is for; None where that key has not announced it."""
        for slot, epoch in self._hosted.items():
            if self.keys[slot].peer_id == key.peer_id and epoch.sync_hash == sync_hash and shard_id in epoch.shards:
                return epoch
        return None


def host_holds(host: SnapshotHost) -> bool:
    """Return whether an announcement is signed by the peer that it names. What it says may be untrue anyway."""
    return holds(host.signature, host.peer_id, host.digest())
