"""How far a new node is, in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.seeding.assist_progress import AssistStage, assist_progress
from pipelines.seeding.assisted_node import NodeState
from pipelines.seeding.status import PeerStatus, SeedStatus, ServedShard, ShardKey, ShardPhase, ShardStatus
from tests.support.stored_epochs import epoch_layout

NOTHING = PeerStatus((1,), 0, (), {}, {}, 0)
HERE = replace(NOTHING, block_height=100, announced_epochs=(7,))
SHARD = ShardStatus(ShardKey(epoch_layout(7), 3), ShardPhase.DOWNLOADING, 212, 1000, parts_complete=41)


def status(peer: PeerStatus) -> SeedStatus:
    """Return how an assistant stands."""
    return SeedStatus("localnet", 0, (SHARD,), 0.0, "", 0, peer)


@pytest.mark.parametrize(
    ("peer", "node", "stage", "words"),
    [
        (NOTHING, None, AssistStage.BRINGING, "epoch 7 is brought here: 41 of 212 parts"),
        (HERE, None, AssistStage.WAITING, "the node is not connected"),
        (replace(HERE, neighbours=1), NodeState(0, True, None), AssistStage.HEADERS, "the node reads headers; its newest block is 0"),
        (replace(HERE, neighbours=1, requests={"not announced": 2}), None, AssistStage.HEADERS, "asks for an epoch that is not here"),
        (replace(HERE, neighbours=1, served=(ServedShard(7, 3, True, 0, 212),)), None, AssistStage.STATE, "shard 3: header served"),
        (
            replace(HERE, neighbours=1, served=(ServedShard(7, 3, True, 41, 212),)),
            None,
            AssistStage.STATE,
            "shard 3: 41 of 212 parts served",
        ),
        (
            replace(HERE, neighbours=1, served=(ServedShard(8, 3, True, 1, 9), ServedShard(7, 3, True, 41, 212))),
            None,
            AssistStage.STATE,
            "1 of 9 parts",
        ),
        (
            replace(HERE, neighbours=1, served=(ServedShard(7, 3, True, 2, 2),)),
            NodeState(0, True, None),
            AssistStage.BLOCKS,
            "all parts served",
        ),
        (replace(HERE, neighbours=1), NodeState(101, True, None), AssistStage.BLOCKS, "applies blocks: 101"),
        (HERE, NodeState(140, False, None), AssistStage.AT_HEAD, "at the head, block 140"),
        (HERE, NodeState(0, False, None), AssistStage.WAITING, "its newest block is 0"),
        (NOTHING, NodeState(140, False, None), AssistStage.BRINGING, "brought here"),
    ],
)
def test_each_step_is_told(peer: PeerStatus, node: NodeState | None, stage: AssistStage, words: str) -> None:
    """A node that says it does not sync before it has heard of the chain is not at its head."""
    found = assist_progress(status(peer), node)
    assert (found.stage, words in found.words) == (stage, True), found.words
