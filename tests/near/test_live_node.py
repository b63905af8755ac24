"""Contexts out of a hot store that another process is writing to."""

from __future__ import annotations

import re
from pathlib import Path

from pipelines.near.epoch.node_context import epoch_context_from_node
from pipelines.near.node.node_columns import STATE_SYNC_HASHES
from pipelines.producing.watch.watch_poll import look_at_node
from tests.support.nodes import LOCALNET_EPOCH_HEIGHT, change_rows, copied, localnet_home, tree
from tests.support.writing_node import writing_node

READS = 6

_DATABASE_FILE = re.compile(r"data/(CURRENT|IDENTITY|LOCK|LOG.*|MANIFEST-\d+|OPTIONS-.*|\d+\.(sst|log|blob|dbtmp))|data")


def others(home: Path) -> list[tuple[str, int, int]]:
    """Return all files of a home but those that belong to the database that is written to."""
    return [entry for entry in tree(home) if _DATABASE_FILE.fullmatch(entry[0]) is None]


def test_contexts_are_read_while_a_node_writes(tmp_path: Path) -> None:
    """Again and again, through flushes and compactions; the new epoch is seen when its sync hash is there; nothing is left in the home."""
    home = copied(localnet_home(), tmp_path)
    expected = {height: epoch_context_from_node(home, str(height)) for height in (4, 5, 6)}
    newest = expected[LOCALNET_EPOCH_HEIGHT]
    change_rows(home / "data", STATE_SYNC_HASHES, {newest.epoch_id: None})
    seen, rounds = [], []
    with writing_node(home, newest.epoch_id, newest.sync_hash, write_at=READS // 2) as node:
        before = others(home)
        for _ in range(READS):
            node.begin_change()
            found = look_at_node(home).epochs[-1]
            seen.append(found.epoch_height)
            context = epoch_context_from_node(home, str(found.epoch_id))
            assert context == expected[found.epoch_height]
            assert epoch_context_from_node(home, "4") == expected[4]
            if found.epoch_height == LOCALNET_EPOCH_HEIGHT:
                assert epoch_context_from_node(home) == context
            rounds.append(node.end_change())
        assert others(home) == before
    assert seen == sorted(seen)
    assert set(seen) == {5, 6}
    # It did go on writing.
    assert rounds == sorted(set(rounds))


def test_after_a_node_was_killed_nothing_is_written_either(tmp_path: Path) -> None:
    """A store with a fresh log, as a killed process leaves it, is read as it lies there."""
    home = copied(localnet_home(), tmp_path)
    newest = epoch_context_from_node(home)
    change_rows(home / "data", STATE_SYNC_HASHES, {newest.epoch_id: None})
    with writing_node(home, newest.epoch_id, newest.sync_hash, write_at=1) as node:
        for _ in range(2):
            node.begin_change()
            node.end_change()
    before = tree(home)
    assert epoch_context_from_node(home) == newest
    assert look_at_node(home).epochs[-1].sync_hash == newest.sync_hash
    assert tree(home) == before
