"""Finds the context of an epoch that neither a given context nor an endpoint contradicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.near.epoch.context_agreement import AgreedContext, agreed_epoch_context
from pipelines.near.epoch.epoch_context_source import EpochContextSource
from pipelines.near.epoch.given_context import GivenContextSource
from pipelines.near.epoch.node_context import OpenedNode, open_node
from pipelines.near.epoch.rpc_context import RpcContextSource
from pipelines.near.trie.trie_walk_source import StateWalk
from schemas.errors import SourceError
from schemas.nearcore.epoch_context import EpochContext


@dataclass(frozen=True, slots=True)
class EpochContextFinder:
    """What is asked for an epoch's context besides the source of its records. Every method raises as `agreed_epoch_context` does."""

    given: GivenContextSource | None
    """It comes first, as the epoch that is meant."""
    endpoints: tuple[RpcContextSource, ...]
    """Asked last; one that can't be reached is left out while another source answers."""
    note_left_out: Callable[[SourceError], None]
    """Told why an endpoint was left out."""
    note_chosen: Callable[[str], None] = lambda _why: None
    """Told why ``latest`` is not the newest epoch that a node knows, or is had otherwise than from flat state."""

    def find(self, selector: str) -> EpochContext | None:
        """Return the context of an epoch whose records come without one; None where there is nothing to ask."""
        return self._agreed((), selector).context if self.given or self.endpoints else None

    def find_with_sources(self, selector: str) -> tuple[EpochContext, frozenset[str]]:
        """Return the context of an epoch, and the sources that know it and say the same of it; there must be something to ask."""
        agreed = self._agreed((), selector)
        return agreed.context, agreed.knowing

    def find_in_node(self, home: Path, selector: str, state_walk: StateWalk = StateWalk.AUTO) -> EpochContext:
        """Return the context of an epoch whose records come from a node; see `open_node`."""
        with open_node(home, state_walk) as node:
            found = self.find_in_open_node(node, selector)
            if node.note:
                self.note_chosen(node.note)
            return found

    def find_in_open_node(self, node: OpenedNode, selector: str) -> EpochContext:
        """Do what `find_in_node` does, of a node that is open: for several epochs."""
        return node.with_parents(self._agreed((node,), selector).context)

    def _agreed(self, sources: Sequence[EpochContextSource], selector: str) -> AgreedContext:
        agreed = agreed_epoch_context((*((self.given,) if self.given else ()), *sources), selector, self.endpoints)
        for failure in agreed.unreachable:
            self.note_left_out(failure)
        return agreed
