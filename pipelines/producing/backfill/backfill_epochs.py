"""Which epochs a backfill is about: a range of heights, each with its context out of the node's database, or of what else is asked.

An epoch whose context can't be had is listed with what is wrong, so that the others are done anyway.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipelines.near.epoch.node_context import OpenedNode, open_node
from pipelines.near.trie.trie_walk_source import tracked_shards
from schemas.errors import EpochNotReadyError, IntegrityError, InvalidInputError, StatecastError
from schemas.ids import ShardUId
from schemas.nearcore.epoch_context import EpochContext

EPOCHS_MAX: Final = 10_000
"""Most epochs of one backfill."""


@dataclass(frozen=True, slots=True)
class WantedEpoch:
    """An epoch of the range."""

    epoch_height: int
    context: EpochContext | None
    """With the wanted shards alone; None where ``failure`` says why there is none."""
    epoch_shard_uids: tuple[ShardUId, ...] = ()
    """All shards of the epoch."""
    failure: StatecastError | None = None

    @property
    def epoch_shard_ids(self) -> tuple[int, ...]:
        """The ids of all shards of the epoch."""
        return tuple(shard_uid.shard_id for shard_uid in self.epoch_shard_uids)


def parse_epoch_range(text: str) -> range:
    """Parse ``2900..2950`` (both ends belong to it) or a single height.

    Raises:
        InvalidInputError: another form, an empty range, or more than ``EPOCHS_MAX`` epochs.
    """
    match = re.fullmatch(r"(\d{1,15})(?:\.\.(\d{1,15}))?", text.strip())
    if match is None:
        raise InvalidInputError(
            problem=f"{text!r:.80} is no range of epoch heights", where="--epochs", remedy="Write 2900..2950, or one height."
        )
    low, high = int(match[1]), int(match[2] or match[1])
    if not low <= high < low + EPOCHS_MAX:
        raise InvalidInputError(problem=f"a range of epochs has 1 to {EPOCHS_MAX} heights, the lower one first", where=f"--epochs {text}")
    return range(low, high + 1)


def find_node_epochs(
    node_home: str | Path, heights: range, shard_ids: tuple[int, ...], context_of: Callable[[OpenedNode, str], EpochContext] | None = None
) -> tuple[WantedEpoch, ...]:
    """Return the epochs of a range, ascending by height. The node's database is opened, and its epochs are listed, once for all.

    Args:
        shard_ids: the wanted shards; when empty, all that the node tracks. An epoch that has none of them fails, the others don't.
        context_of: returns the context of a height given as text, in place of the node itself.
    Raises:
        SourceError: the node's home or its database can't be read at all.
    """
    find = context_of or OpenedNode.epoch_context
    with open_node(node_home) as node:
        return tuple(_wanted(node_home, lambda selector: find(node, selector), height, shard_ids) for height in heights)


def _wanted(node_home: str | Path, find: Callable[[str], EpochContext], height: int, shard_ids: tuple[int, ...]) -> WantedEpoch:
    try:
        context = find(str(height))
        return WantedEpoch(height, tracked_shards(node_home, context, shard_ids), tuple(shard.shard_uid for shard in context.shards))
    except (EpochNotReadyError, IntegrityError, InvalidInputError) as error:
        return WantedEpoch(height, None, failure=error)
