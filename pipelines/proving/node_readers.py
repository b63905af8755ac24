"""Where a walk takes trie nodes and values from: a list that must be used up in order, a set by hash, or a node's State column.

A reader is called with a hash and returns the bytes that hash to it; it never returns others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from pipelines.near.node.state_column import StateColumn
from schemas.errors import IntegrityError, MissingTrieValueError
from schemas.ids import CryptoHash

ReadNode: TypeAlias = Callable[[bytes], bytes]
"""Returns the bytes of a hash; raises an IntegrityError where it does not have them."""


class NodesInOrder:
    """The nodes of a proof, each of which must be asked for, in its place."""

    def __init__(self, nodes: Sequence[bytes]) -> None:
        self._nodes = nodes
        self._used = 0

    def __call__(self, wanted: bytes) -> bytes:
        """Return the next node.

        Raises:
            MissingTrieValueError: there is none, or it does not hash to what its parent names.
        """
        if self._used == len(self._nodes):
            raise MissingTrieValueError(problem=f"the proof ends before node {CryptoHash(wanted)}", where=f"node {self._used}")
        node = self._nodes[self._used]
        if hashlib.sha256(node).digest() != wanted:
            raise MissingTrieValueError(problem=f"a node of the proof does not hash to {CryptoHash(wanted)}", where=f"node {self._used}")
        self._used += 1
        return node

    def finish(self) -> None:
        """Check that every node was asked for.

        Raises:
            IntegrityError: some were not.
        """
        if self._used != len(self._nodes):
            raise IntegrityError(problem=f"the walk needs {self._used} of the proof's {len(self._nodes)} nodes", where=f"node {self._used}")


class NodesByHash:
    """Nodes and values in no order, such as the entries of state parts or another program's proof."""

    def __init__(self, entries: Iterable[bytes], where: str) -> None:
        self._entries = {hashlib.sha256(entry).digest(): entry for entry in entries}
        self._where = where

    def __call__(self, wanted: bytes) -> bytes:
        """Return the entry that has a hash.

        Raises:
            MissingTrieValueError: none has.
        """
        try:
            return self._entries[wanted]
        except KeyError:
            raise MissingTrieValueError(problem=f"nothing hashes to {CryptoHash(wanted)}", where=self._where) from None


class NodesOfColumn:
    """Nodes and values out of a node's State column, which checks each by its hash."""

    def __init__(self, column: StateColumn) -> None:
        self._column = column

    def __call__(self, wanted: bytes) -> bytes:
        """Return the row of a hash.

        Raises:
            MissingTrieValueError: there is none, or it is damaged.
            SourceError: the database can't be read.
        """
        payload = self._column.read([wanted])[0]
        if payload is None:
            raise MissingTrieValueError(
                problem=f"{CryptoHash(wanted)} {self._column.explain(wanted)}",
                where=self._column.where,
                remedy="The node no longer keeps this state, or its database is damaged; take a node that has it.",
            )
        return payload
