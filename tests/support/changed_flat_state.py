"""Flat state that is changed behind the node's back: a value of the same length, so that nothing shows before its part is hashed."""

from __future__ import annotations

from pathlib import Path

from pipelines.near.node.flat_state_location import locate_flat_state
from pipelines.near.node.node_columns import FLAT_STATE
from pipelines.near.node.node_home import read_node_home
from pipelines.near.node.rocksdb_reader import forget_readers
from schemas.dataset.flat_state_value import encode_inlined
from schemas.ids import ZERO_HASH, ShardUId
from tests.support.nodes import change_rows, context_file, open_writable, snapshot_folder

S0 = ShardUId(version=3, shard_id=0)


def flat_row(home: Path, number: int) -> tuple[bytes, bytes]:
    """Return an inlined row of shard 0's flat state with a value of some bytes, by its position among those."""
    folder = locate_flat_state(read_node_home(home), S0, context_file(home).shards[0].flat_head_target or ZERO_HASH).folder
    forget_readers()
    database = open_writable(folder)
    family = database.get_column_family(FLAT_STATE)
    rows = [
        (bytes(key), bytes(row))
        for key, row in family.items(from_key=S0.to_bytes())
        if bytes(key).startswith(S0.to_bytes()) and row[0] == 1 and len(row) > 12
    ]
    family.close()
    database.close()
    return rows[number]


def change_value(home: Path, number: int = -1) -> Path:
    """Change a value of shard 0 and leave its length: memory usage and boundaries stay as they are."""
    key, row = flat_row(home, number)
    changed = encode_inlined(bytes([row[5] ^ 0xFF]) + row[6:])
    assert len(changed) == len(row)
    for folder in (snapshot_folder(home), home / "data"):
        change_rows(folder, FLAT_STATE, {key: changed})
    return home
