"""A synthetic state with its tries: the State column of a node that keeps several states of one shard.

`state_with_tries` adds the tries of all shards to a home of any size, part by part. `trie_state` makes a home whose shard was in several states:
their tries are computed in one piece, in some 2 GiB of memory a million records. Further states are the same with some
records changed; only the nodes that they don't share are added.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pyarrow as pa
from rocksdict import Rdict, WriteOptions

from benchmarks.synthetic_state import SHARD_UID, SyntheticState, node_options
from pipelines.dataset.export.export_records import RANGE_BYTES_TARGET
from pipelines.execution.stage_runner import silent_runner
from pipelines.kernel.native import NativeKernel
from pipelines.near.node.flat_state_source import KeyRange
from pipelines.near.node.node_columns import STATE
from pipelines.near.node.node_store import NodeSource
from pipelines.near.node.rocksdb_reader import forget_readers
from pipelines.producing.build.assemble import assemble_with
from pipelines.producing.build.build_part import BuildPartTask
from pipelines.producing.build.shard_origin import DirectOrigin
from pipelines.producing.build.work_folder import direct_work_folder
from pipelines.producing.direct_shard import build_edges, plan_direct
from schemas.dataset.flat_state import RECORD_SCHEMA
from schemas.ids import CryptoHash
from schemas.nearcore.epoch_context import EpochContext, ShardContext, parse_epoch_context
from schemas.nearcore.state_part import decode_partial_state

TRIE_RECORDS_MAX: Final = 1_200_000
"""Most records of a state whose whole trie is put together in memory: it is made as one part, which has 512 MiB at most."""

TRIES_CONTEXT: Final = "tries.json"
"""In a home: its context with the shards' state roots, written when all their tries are in the State column."""

_COUNT: Final = (1).to_bytes(8, "little")
_BATCH_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class ChangedState:
    """Another state of the shard."""

    changes: int
    spread: bool
    """Changed records lie all over the shard; else they follow each other."""
    context: EpochContext
    keys: frozenset[bytes]
    """Of the changed records."""


@dataclass(frozen=True, slots=True)
class TrieState:
    """A node's home whose State column has the trie of a synthetic state, and of others that differ from it by some records."""

    home: Path
    context: EpochContext
    records: int
    changed: tuple[ChangedState, ...]


@dataclass(frozen=True, slots=True)
class ChangedSource(NodeSource):
    """The flat state of a changed state: the home's own with the changes made to it on the way, which takes no walk over the trie."""

    changed_keys: frozenset[bytes] = frozenset()

    def records(self, shard: ShardContext, key_range: KeyRange, record_batch_bytes_max: int) -> Iterator[pa.RecordBatch]:
        """Yield the records of a key range."""
        for batch in NodeSource.records(self, shard, key_range, record_batch_bytes_max):
            yield _with_changes(batch, self.changed_keys)


def state_with_tries(state: SyntheticState) -> SyntheticState:
    """Add the tries of all shards to a state's home, or find them there; return the state with the shards' roots.

    The state itself stays one without roots, whose parts wait for them.
    """
    file = state.home / TRIES_CONTEXT
    if not has_tries(state):
        work = state.home / "tries-work"
        shutil.rmtree(work, ignore_errors=True)
        shards = tuple(replace(shard, state_root=_add_shard(state, shard, f"file://{work}")) for shard in state.context.shards)
        file.write_text(json.dumps(replace(state.context, shards=shards).to_json(), indent=1))
        shutil.rmtree(work)
    return replace(state, context=parse_epoch_context(file.read_bytes(), str(file)))


def has_tries(state: SyntheticState) -> bool:
    """Return whether the tries of all shards are in a state's home."""
    return (state.home / TRIES_CONTEXT).exists()


def _add_shard(state: SyntheticState, shard: ShardContext, work_url: str) -> CryptoHash:
    """Write all nodes of a shard's trie to the State column; return its root. What a part proves is all that it adds."""
    runner, kernel, source = silent_runner(), NativeKernel(), NodeSource(str(state.home), state.context)
    origin = DirectOrigin(source, shard, direct_work_folder(work_url, state.context, shard.shard_uid, "tries"))
    planned = plan_direct(runner, kernel, origin, None, RANGE_BYTES_TARGET)
    built = build_edges(runner, kernel, planned, source)
    with _writable_state(state.home) as rows:
        prefix = shard.shard_uid.to_bytes()
        for plan in planned.plans:
            building = BuildPartTask(planned.records, planned.work, kernel.name, plan)
            part = building.part()[1] if plan.spans else assemble_with(kernel, planned.work, plan, None)
            for entry in decode_partial_state(part):
                data = bytes(entry)
                rows[prefix + hashlib.sha256(data).digest()] = data + _COUNT
    forget_readers()
    return built.state_root


@contextmanager
def _writable_state(home: Path) -> Iterator[Rdict]:
    """Open a home's State column for rows that need no log; they are on the disk in the end."""
    columns = {name: node_options() for name in Rdict.list_cf(str(home / "data"))}
    database = Rdict(str(home / "data"), options=node_options(), column_families=columns)
    try:
        state = database.get_column_family(STATE)
        unlogged = WriteOptions()
        unlogged.disable_wal = True
        state.set_write_options(unlogged)
        yield state
        state.flush()
    finally:
        database.close()


def trie_state(state: SyntheticState, folder: Path, wanted: Iterable[tuple[int, bool]]) -> TrieState:
    """Make the home.

    Args:
        folder: where it goes; must not be there.
        wanted: (changes, spread) of each further state.
    """
    assert state.records <= TRIE_RECORDS_MAX, "the trie is put together in memory"
    shutil.copytree(state.home, folder)
    source = NodeSource(str(state.home), state.context)
    shard = state.context.shards[0]
    batches = list(source.records(shard, KeyRange(b"", None), _BATCH_BYTES))
    hashes = sorted({value_hash for batch in batches for value_hash in batch["value_hash"].drop_null().to_pylist()})
    values = list(source.values(shard, hashes, _BATCH_BYTES))
    known: set[bytes] = set()
    root = _add_trie(folder, batches, values, known)
    inlined = [key for batch in batches for key, value in zip(batch["key"].to_pylist(), batch["value"].to_pylist(), strict=True) if value]
    changed = []
    for number, (changes, spread) in enumerate(wanted):
        keys = _changed_keys(inlined, changes, spread)
        state_root = _add_trie(folder, [_with_changes(batch, keys) for batch in batches], values, known)
        changed.append(ChangedState(changes, spread, _context(state, state_root, str(number)), keys))
    return TrieState(folder, _context(state, root, ""), state.records, tuple(changed))


def _context(state: SyntheticState, state_root: CryptoHash, name: str) -> EpochContext:
    epoch_id = CryptoHash(hashlib.sha256(f"{state.context.epoch_id} {name}".encode()).digest()) if name else state.context.epoch_id
    shards = (replace(state.context.shards[0], state_root=state_root),)
    return replace(state.context, epoch_id=epoch_id, epoch_height=state.context.epoch_height + bool(name), shards=shards)


def _changed_keys(inlined: list[bytes], changes: int, spread: bool) -> frozenset[bytes]:
    """Choose as many of the keys whose values are inlined."""
    step = len(inlined) // changes if spread else 1
    begin = 0 if spread else len(inlined) // 3
    return frozenset(inlined[begin::step][:changes])


def _with_changes(batch: pa.RecordBatch, changed_keys: frozenset[bytes]) -> pa.RecordBatch:
    """Return records with the values of some keys changed, in length the same."""
    rows = zip(batch["key"].to_pylist(), batch["value"].to_pylist(), strict=True)
    values = [bytes([value[0] ^ 0xFF]) + value[1:] if key in changed_keys else value for key, value in rows]
    return pa.RecordBatch.from_arrays([batch["key"], pa.array(values, pa.binary()), *batch.columns[2:]], schema=RECORD_SCHEMA)


def _add_trie(home: Path, records: list[pa.RecordBatch], values: list[pa.RecordBatch], known: set[bytes]) -> CryptoHash:
    """Write a trie's nodes and values to the State column, but for those that are there; return its root."""
    kernel = NativeKernel()
    build = kernel.build(records, values, None, None)
    assert build.interior is not None, "it was asked for"
    sealed = kernel.seal([build.edge])
    with _writable_state(home) as state:
        entries = [bytes(entry) for entry in decode_partial_state(kernel.assemble(build.interior, list(sealed.boundary_nodes[0])))]
        for entry in entries:
            entry_hash = hashlib.sha256(entry).digest()
            if entry_hash not in known:
                known.add(entry_hash)
                state[SHARD_UID.to_bytes() + entry_hash] = entry + _COUNT
        root = sealed.root_node
        state[SHARD_UID.to_bytes() + hashlib.sha256(root).digest()] = root + _COUNT
    return sealed.state_root
