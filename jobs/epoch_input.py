"""From options to what a job works on: an epoch of a node, of a file, or exported before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import structlog
import typer

from jobs.options import (
    SOURCE_PANEL,
    ContextFile,
    Epoch,
    EpochId,
    NodeHome,
    ReadLimit,
    RpcOptions,
    RunOptions,
    ShardIds,
    StateWalkOption,
    epoch_selector,
    node_home_folder,
)
from pipelines.dataset.arrow_dataset import DATASET_SCHEME
from pipelines.near.node.read_limit import give_node_the_disk
from pipelines.near.trie.trie_walk_source import StateWalk
from pipelines.nearpeer.peer_url import SCHEME as NEAR_SCHEME
from pipelines.producing.epoch_input import EpochInput, dataset_input, file_input, node_input
from schemas.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class InputOptions:
    """What is read: options of the commands that read one epoch."""

    node_home: NodeHome = None
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            help="Another source instead of a node: dataset://URL of an export, genesis://FILE, records://FILE of JSON lines; for produce "
            "near://ed25519:KEY@host:port of a node whose parts are taken over its network, which may be repeated.",
            rich_help_panel=SOURCE_PANEL,
            show_default=False,
        ),
    ] = None
    context: ContextFile = None
    rpc: RpcOptions
    epoch: Epoch = None
    epoch_id: EpochId = None
    shard_id: ShardIds = None
    read_limit: ReadLimit = None
    state_walk: StateWalkOption = StateWalk.AUTO

    @property
    def selector(self) -> str:
        """The one epoch selector that the options name; raises as `epoch_selector`."""
        return epoch_selector(self.epoch, self.epoch_id)

    @property
    def is_network(self) -> bool:
        """Whether parts are taken from peers of nearcore's network."""
        return bool(self.source) and all(url.startswith(NEAR_SCHEME) for url in self.source or ())

    def beside_node(self, run: RunOptions) -> str:
        """Return how much of a node's machine a run takes, as the end of a line; empty where no node is read."""
        return "" if self.node_home is None else f"; {run.neighbour_note(self.read_limit)}"

    def open(self, run: RunOptions) -> EpochInput:
        """Resolve the options.

        Args:
            run: its readers share the read limit.
        Raises:
            InvalidInputError: no source, two sources, or a context that does not fit.
            EpochNotReadyError: the epoch is not there.
            SourceError: the source can't be read.
        """
        if (self.node_home is None) == (not self.source):
            raise InvalidInputError(
                problem="name one source", remedy="Give --node-home HOME, or --from dataset://…, genesis://… or records://…."
            )
        selector, shard_ids = self.selector, tuple(self.shard_id or ())
        contexts = self.rpc.contexts(self.context)
        if self.node_home is not None:
            limit = run.read_limit_each(self.read_limit)
            home = node_home_folder(self.node_home)
            give_node_the_disk()
            found = node_input(home, contexts, selector, shard_ids, state_walk=self.state_walk, read_limit_bytes_per_s=limit)
            if found.left_out and not shard_ids:
                structlog.get_logger().info("shards that the node does not track are left out", shards=", ".join(map(str, found.left_out)))
            return found
        assert self.source, "one of the two is given"
        if any(url.startswith(NEAR_SCHEME) for url in self.source):
            raise InvalidInputError(
                problem="peers of the network have parts and no records: produce takes them, and no other source beside them",
                where=f"--from {NEAR_SCHEME}…",
            )
        if len(self.source) > 1:
            raise InvalidInputError(problem="one source at a time; several are for near://…", where="--from")
        if self.source[0].startswith(DATASET_SCHEME):
            return dataset_input(self.source[0], contexts, selector, shard_ids)
        if self.read_limit is not None:
            raise InvalidInputError(problem="--read-limit is for --node-home")
        return file_input(self.source[0], contexts, selector, shard_ids)
