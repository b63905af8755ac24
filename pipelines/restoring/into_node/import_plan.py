"""What an import would do to a node, and whether the node is one that it may be done to.

Reads the node's database, read-only; starts nothing but neard's version and help.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.near.epoch.node_context import check_context_against_node, list_epochs
from pipelines.near.epoch.node_epochs import UnreadableEpoch
from pipelines.near.node.genesis_head import read_genesis_fields
from pipelines.near.node.node_home import NodeHome, read_node_home
from pipelines.near.node.node_store import NodeSource
from pipelines.restoring.into_node.load_command import ShardLoad
from pipelines.restoring.into_node.load_journal import LoadJournal
from pipelines.restoring.into_node.neard_program import LoadWay, NeardProgram
from pipelines.restoring.into_node.node_guard import check_not_running
from pipelines.restoring.part_folder import ShardParts
from schemas.errors import EpochNotReadyError, InvalidInputError, SourceError
from schemas.nearcore.epoch_context import EpochContext


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """An import that the node's state allows."""

    home: Path
    data: Path | None
    """The node's database; None where it has none yet."""
    neard: NeardProgram
    parts_root: Path
    loads: tuple[ShardLoad, ...]
    """With the tool; none with config.json."""
    journal: LoadJournal | None

    @property
    def config_file(self) -> Path:
        """The node's configuration."""
        return self.home / "config.json"

    def commands(self) -> list[tuple[ShardLoad, tuple[str, ...], tuple[int, ...]]]:
        """Return what would be run: for each command its shard and its parts."""
        found = []
        for load in self.loads:
            assert self.journal is not None, "loads have a journal"
            for command, parts in load.commands(self.neard, self.journal.left(load.shard_id, load.num_parts)):
                found.append((load, command, parts))
        return found


def plan_import(
    context: EpochContext, shards: Sequence[ShardParts], parts_root: Path, node_home: Path, neard: NeardProgram, *, journal_folder: Path
) -> ImportPlan:
    """Check the node, and say what would be done.

    Args:
        context: of these shards alone.
        parts_root: the folder that holds ``chain_id=…``.
    Raises:
        NodeError: the node runs.
        InvalidInputError: its chain, epoch, sync hash or state roots are others.
        EpochNotReadyError: its database lacks what neard's tool needs.
        SourceError: its home or database can't be read.
    """
    home = _home(node_home, neard)
    check_not_running(home.home, home.data if home.data.is_dir() else None)
    if not _has_database(home):
        if neard.way is LoadWay.TOOL:
            raise EpochNotReadyError(
                problem="the node has no database yet, and neard's tool loads parts only where the epoch's headers are",
                where=str(home.data),
                remedy="Start the node until it has synced headers, stop it, and run again.",
            )
        _check_genesis(home, context)
        return ImportPlan(home.home, None, neard, parts_root, (), None)
    check_context_against_node(context, home.home)
    if neard.way is LoadWay.CONFIG:
        return ImportPlan(home.home, home.data, neard, parts_root, (), None)
    _check_epoch_row(home, context)
    loads = []
    for shard in shards:
        shard_id, num_parts = shard.context.shard_id, len(shard.parts)
        if NodeSource(str(home.home), context).state_header_row(shard.context, context.sync_hash) is None:
            raise EpochNotReadyError(
                problem=f"the node has no state header of shard {shard_id} for this sync hash; neard's tool takes no part without it",
                where=f"StateHeaders (col18), {home.data}",
                remedy="Start the node until state sync has begun and it has fetched the header, stop it, and run again.",
            )
        if num_parts:
            loads.append(ShardLoad(home.home, parts_root, shard_id, shard.state_root, context.sync_hash, context.epoch_height, num_parts))
    facts = [
        context.chain_id,
        str(context.epoch_id),
        str(context.sync_hash),
        *[[one.shard_id, str(one.state_root), one.num_parts] for one in loads],
    ]
    return ImportPlan(home.home, home.data, neard, parts_root, tuple(loads), LoadJournal.open(journal_folder, home.data, facts))


def _home(node_home: Path, neard: NeardProgram) -> NodeHome:
    resolved = node_home.expanduser().resolve()
    try:
        return read_node_home(resolved)
    except SourceError:
        # A node that was only initialised has a configuration and no data.
        if neard.way is LoadWay.TOOL or not (resolved / "config.json").is_file() or (resolved / "data").exists():
            raise
    return NodeHome(resolved, resolved / "data", None, resolved / "genesis.json")


def _has_database(home: NodeHome) -> bool:
    return (home.data / "CURRENT").is_file()


def _check_genesis(home: NodeHome, context: EpochContext) -> None:
    if home.genesis_file is None or not home.genesis_file.is_file():
        raise SourceError(problem="the node has no genesis file, so its chain can't be told", where=str(home.home))
    chain_id = read_genesis_fields(home.genesis_file, ("chain_id",)).get("chain_id")
    if chain_id != context.chain_id:
        raise InvalidInputError(
            problem=f"the parts are of chain {context.chain_id}, the node is of chain {chain_id}", where=str(home.genesis_file)
        )


def _check_epoch_row(home: NodeHome, context: EpochContext) -> None:
    """Make sure that the tool's epoch height names this epoch alone.

    Source: nearcore tools/state-viewer/src/state_parts.rs, EpochSelection::to_epoch_id.
    """
    listing = list_epochs(home.home)
    at_height, named = listing.of_height(context.epoch_height), listing.of_id(context.epoch_id)
    if isinstance(named, UnreadableEpoch):
        raise named.failure
    if named not in at_height:
        raise EpochNotReadyError(
            problem=f"the node does not know epoch {context.epoch_id}",
            where=f"EpochInfo (col11), {home.data}",
            remedy="Start the node until it has synced headers past the epoch's beginning, stop it, and run again.",
        )
    if len(at_height) > 1:
        raise EpochNotReadyError(
            problem=f"the node knows {len(at_height)} epochs of height {context.epoch_height}, and neard's tool can't choose between them",
            where=f"EpochInfo (col11), {home.data}",
        )
