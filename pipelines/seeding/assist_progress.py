"""How far a new node is, in words: from what it asks for, and from what it answers. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pipelines.seeding.assisted_node import NodeState
from pipelines.seeding.status import PeerStatus, SeedStatus, ServedShard


class AssistStage(StrEnum):
    """Steps of a new node's start; they follow one another, and a node that starts again goes back."""

    BRINGING = "bringing"
    """The epoch is on its way here."""
    WAITING = "waiting"
    """The epoch is here, the node is not."""
    HEADERS = "headers"
    """The node is connected and has asked for nothing yet: it reads the chain's headers."""
    STATE = "state"
    BLOCKS = "blocks"
    """It has the state, and applies what came after."""
    AT_HEAD = "at_head"


@dataclass(frozen=True, slots=True)
class AssistProgress:
    """Where the node is."""

    stage: AssistStage
    words: str


def assist_progress(status: SeedStatus, node: NodeState | None) -> AssistProgress:
    """Say where a node is.

    A node that syncs no more counts as being at the head when it is above the announced epoch's sync block alone: before it has peers, it
    does not know yet that it is behind.

    Args:
        node: what it answered last; None where it does not answer.
    """
    peer = status.near_peer
    assert peer is not None, "an assistant is a peer of the node"
    height = "" if node is None else f"; its newest block is {node.block_height}"
    if peer.block_height is None:
        return AssistProgress(AssistStage.BRINGING, _bringing(status))
    if node is not None and node.block_height > peer.block_height:
        if not node.is_syncing:
            return AssistProgress(AssistStage.AT_HEAD, f"the node is at the head, block {node.block_height}")
        return AssistProgress(AssistStage.BLOCKS, f"the node applies blocks: {node.block_height}")
    if not peer.neighbours:
        return AssistProgress(AssistStage.WAITING, f"all parts are here; the node is not connected{height}")
    asked = _asked(peer)
    if not asked:
        return AssistProgress(AssistStage.HEADERS, f"the node reads headers{height}{_asked_elsewhere(peer)}")
    if all(shard.is_whole for shard in asked):
        shards = ", ".join(str(shard.shard_id) for shard in asked)
        return AssistProgress(AssistStage.BLOCKS, f"state of shard {shards}: all parts served; the node applies them, then blocks{height}")
    return AssistProgress(AssistStage.STATE, "; ".join(map(_served, asked)))


def _bringing(status: SeedStatus) -> str:
    if not status.shards:
        return "no epoch is here yet" + (f": {status.poll_problem}" if status.poll_problem else "")
    newest = max(shard.key.epoch_height for shard in status.shards)
    shards = [shard for shard in status.shards if shard.key.epoch_height == newest]
    here, all_parts = sum(shard.parts_complete for shard in shards), sum(shard.parts_total for shard in shards)
    problem = next((f"; {shard.problem}" for shard in shards if shard.problem), "")
    return f"epoch {newest} is brought here: {here} of {all_parts} parts{problem}"


def _asked(peer: PeerStatus) -> list[ServedShard]:
    """Return the shards that the node asks for, of the newest epoch of which it asks for any."""
    asked = [shard for shard in peer.served if shard.header or shard.parts]
    newest = max((shard.epoch_height for shard in asked), default=0)
    return [shard for shard in asked if shard.epoch_height == newest]


def _served(shard: ServedShard) -> str:
    if not shard.parts:
        return f"state of shard {shard.shard_id}: header served"
    return f"state of shard {shard.shard_id}: {shard.parts} of {shard.parts_total} parts served"


def _asked_elsewhere(peer: PeerStatus) -> str:
    if peer.requests.get("not announced"):
        return "; it asks for an epoch that is not here"
    return ""
