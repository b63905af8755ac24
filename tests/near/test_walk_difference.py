"""The difference of two tries: exactly the keys whose records differ, without reading what they share."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given

from pipelines.near.node.state_column import StateColumn
from pipelines.near.trie.changed_records import KindFilter
from pipelines.near.trie.walk_difference import trie_difference
from schemas.ids import ZERO_HASH
from tests.support.records import Pairs, record_sets
from tests.support.state_rows import node_of, state_column


def differing(older: Pairs, newer: Pairs) -> dict[bytes, bytes | None]:
    """Compare records the plain way."""
    old, new = dict(older), dict(newer)
    return {key: new.get(key) for key in old.keys() | new.keys() if old.get(key) != new.get(key)}


@given(older=record_sets(), newer=record_sets())
def test_any_two_tries_differ_as_their_records_do(tmp_path_factory: pytest.TempPathFactory, older: Pairs, newer: Pairs) -> None:
    """Inserted, changed and removed keys, in tries that share some, much or nothing; also limited to some kinds of keys."""
    home, (old_root, new_root) = node_of(tmp_path_factory.mktemp("node"), older, newer)
    column = state_column(home)
    found = {
        key: None if leaf is None else column.read([leaf.value_hash])[0]
        for key, leaf in trie_difference(column, old_root, new_root, all_of)
    }
    assert found == differing(older, newer)
    some = dict(trie_difference(column, old_root, new_root, KindFilter(frozenset({1, 9}))))
    assert some.keys() - {b""} == {key for key in found if key[:1] in (b"\x01", b"\x09")}


def all_of(prefix: bytes) -> bool:
    """Leave nothing out."""
    return True


@given(pairs=record_sets())
def test_a_trie_differs_from_the_empty_one_by_everything(tmp_path_factory: pytest.TempPathFactory, pairs: Pairs) -> None:
    """In both directions; and from itself by nothing."""
    home, (root,) = node_of(tmp_path_factory.mktemp("node"), pairs)
    column = state_column(home)
    assert {key for key, leaf in trie_difference(column, ZERO_HASH, root, all_of) if leaf} == {key for key, _ in pairs}
    assert {key for key, leaf in trie_difference(column, root, ZERO_HASH, all_of) if leaf is None} == {key for key, _ in pairs}
    assert list(trie_difference(column, root, root, all_of)) == []


class CountingColumn(StateColumn):
    """Counts the nodes that are read."""

    nodes = 0

    def read(self, hashes: Sequence[bytes]) -> list[bytes | None]:
        """Count and read."""
        self.nodes += len(hashes)
        return super().read(hashes)


@pytest.mark.parametrize("records", [200, 3000])
def test_few_changes_read_few_nodes(tmp_path_factory: pytest.TempPathFactory, records: int) -> None:
    """What is read follows the changes, not the tries."""
    older = [(b"\x00" + f"{number:05d}".encode(), b"value") for number in range(records)]
    newer = [(key, b"other" if number in (17, 90) else value) for number, (key, value) in enumerate(older)]
    home, (old_root, new_root) = node_of(tmp_path_factory.mktemp("node"), older, newer)
    column = state_column(home)
    column.__class__ = CountingColumn
    assert isinstance(column, CountingColumn)
    assert {key for key, _ in trie_difference(column, old_root, new_root, all_of)} == {older[17][0], older[90][0]}
    assert column.nodes < 60
