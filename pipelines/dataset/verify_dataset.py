"""Is a dataset the chain's state: its state root, recomputed over all its files and compared with the trusted one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from pipelines.dataset.arrow_dataset import DatasetReference, ShardDataset, read_dataset
from pipelines.dataset.difference import TrustedTrie, name_difference
from pipelines.dataset.export.export_records import discard_export, store_summary
from pipelines.execution.executor import TaskNeeds
from pipelines.execution.stage_runner import Amount, StageRunner
from pipelines.kernel.choice import choose_kernel
from pipelines.kernel.trie_kernel import Kernel
from pipelines.near.node.flat_state_source import FlatStateSource
from schemas.errors import SourceError, StateRootMismatchError, ValueMismatchError
from schemas.ids import ZERO_HASH, CryptoHash
from schemas.nearcore.epoch_context import ShardContext

HASH_TASK_MEMORY_BYTES = 600 << 20
"""Most memory of a process that hashes dataset files."""


@dataclass(frozen=True, slots=True)
class HashFileTask:
    """Hashes one dataset file's key range without keeping nodes: what a root check of a dataset needs."""

    dataset: DatasetReference
    kernel_name: str
    file_index: int

    def run(self) -> bytes:
        """Return the range's edge.

        Raises:
            DatasetError, IntegrityError: passed on.
        """
        dataset = read_dataset(self.dataset)
        left_key, right_key = dataset.neighbouring_keys(self.file_index)
        records = dataset.read_file(self.file_index)
        return choose_kernel(self.kernel_name).build(records, (), left_key, right_key, keep_interior=False).edge


def check_state_root(expected: CryptoHash | None, actual: CryptoHash, what: str) -> None:
    """Compare a recomputed state root with the trusted one; nothing to compare where none is known.

    Raises:
        StateRootMismatchError: they differ.
    """
    if expected is not None and expected != actual:
        raise StateRootMismatchError(
            problem=f"the records hash to state root {actual}, the chain says {expected}",
            where=what,
            remedy="The source does not hold this epoch's state: a record is changed, missing or too many. Nothing of this shard was published.",
            expected=str(expected),
            actual=str(actual),
        )


@dataclass(frozen=True, slots=True)
class RecomputedRoot:
    """What a dataset's records hash to."""

    state_root: CryptoHash
    memory_usage: int
    edges: tuple[bytes, ...]
    """Of the files, in order."""


def recompute_root(runner: StageRunner, kernel: Kernel, dataset: ShardDataset) -> RecomputedRoot:
    """Hash all files of a dataset.

    Raises:
        DatasetError, StoreError: passed on from the tasks.
    """
    summary = dataset.summary
    if not summary.files:
        return RecomputedRoot(ZERO_HASH, 0, ())
    tasks = [HashFileTask(dataset.reference, kernel.name, index) for index in range(len(summary.files))]
    edges = runner.run("hash", str(summary.shard.shard_uid), tasks, TaskNeeds(HASH_TASK_MEMORY_BYTES), lambda _: Amount())
    sealed = kernel.seal(edges)
    return RecomputedRoot(sealed.state_root, sealed.memory_usage, tuple(edges))


def verify_dataset(runner: StageRunner, kernel: Kernel, dataset: ShardDataset, source: FlatStateSource | None) -> ShardDataset:
    """Recompute a dataset's state root, compare it with the trusted one, and note both root and memory usage in its summary.

    Args:
        source: what this run exported the dataset from; None for a dataset that was there before, which is left as it is.
    Raises:
        StateRootMismatchError: it differs.
    """
    if dataset.summary.verified_state_root is not None:
        return dataset
    recomputed = recompute_root(runner, kernel, dataset)
    if source is None:
        check_state_root(dataset.summary.shard.state_root, recomputed.state_root, dataset_name(dataset))
        return dataset
    explanation = RootExplanation(kernel, source, lambda: recomputed.edges, dataset.read_file)
    return settle_root(dataset, recomputed.state_root, recomputed.memory_usage, explanation)


@dataclass(frozen=True, slots=True)
class RootExplanation:
    """What it takes to say where an export differs from the trusted state."""

    kernel: Kernel
    source: FlatStateSource
    read_edges: Callable[[], Sequence[bytes]]
    """Reads the hashed edges of all key ranges, in order."""
    read_range: Callable[[int], Sequence[pa.RecordBatch]]

    def difference(self, shard: ShardContext) -> str:
        """Name the differing keys, as narrow as the source's own trie tells; empty where it can't."""
        edges = self.read_edges()
        if shard.state_root is None or not edges:
            return ""
        named = name_difference(self.kernel, edges, self.read_range, TrustedTrie(shard.state_root, lambda node: self._node(shard, node)))
        return "" if named is None else f", {named}"

    def _node(self, shard: ShardContext, node_hash: bytes) -> bytes | None:
        try:
            return next((bytes(batch.column(1)[0].as_py()) for batch in self.source.values(shard, [node_hash], 1)), None)
        except (ValueMismatchError, SourceError):
            return None


def settle_root(dataset: ShardDataset, state_root: CryptoHash, memory_usage: int, explanation: RootExplanation) -> ShardDataset:
    """Compare an export's recomputed state root with the trusted one and note it in the dataset.

    A dataset that does not hash to the trusted root is removed, so that a rerun exports again.

    Raises:
        StateRootMismatchError: the roots differ; names the keys where they do, where that can be told.
    """
    summary = dataset.summary
    try:
        check_state_root(summary.shard.state_root, state_root, dataset_name(dataset))
    except StateRootMismatchError as error:
        where = dataset_name(dataset) + explanation.difference(summary.shard)
        discard_export(dataset)
        raise error.at(where) from None
    if summary.verified_state_root is not None:
        return dataset
    return store_summary(dataset.url, replace(summary, verified_state_root=state_root, memory_usage=memory_usage))


def dataset_name(dataset: ShardDataset) -> str:
    """Return shard and source of a dataset, for errors."""
    return f"shard {dataset.summary.shard.shard_uid} of {dataset.summary.source}"
