"""Names of what the stages leave for each other between the dataset and the published objects.

Everything lies under a name computed from the dataset's own files, or from the source's fingerprint where there is no dataset, so results of
another are never taken for this one's.
The whole folder may be deleted at any time; a rerun makes it again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pipelines.dataset.arrow_dataset import ShardDataset
from pipelines.stores.open_store import open_store
from pipelines.stores.ranges import read_object
from pipelines.stores.store import Store
from schemas.dataset.dataset_summary import shard_folder
from schemas.errors import ObjectMismatchError, ObjectNotFoundError
from schemas.ids import PartId, ShardUId
from schemas.json_note import Value, read_note
from schemas.nearcore.epoch_context import EpochContext

WORK_OBJECT_BYTES_MAX: Final = 1 << 30
"""Largest object that is read from there: an interior has half of it at most (`PARTIAL_STATE_BYTES_MAX`), everything else less."""


@dataclass(frozen=True, slots=True)
class WorkFolder:
    """Where one shard's intermediate results are."""

    url: str
    folder: str

    def store(self) -> Store:
        """Open the store that the folder is in; a power cut may take what was put last, and damage shows before anything is published."""
        return open_store(self.url, durable=False)

    def read(self, name: str) -> bytes:
        """Return what a stage or an earlier run has left.

        Raises:
            ObjectNotFoundError, ObjectMismatchError, StoreError: as `pipelines.stores.ranges.read_object`.
        """
        return read_object(self.store(), name, WORK_OBJECT_BYTES_MAX)

    def note(self, name: str, read: Callable[[dict[str, Any]], Value]) -> Value | None:
        """Return what ``read`` makes of an earlier run's note; None where there is none, or a damaged one."""
        try:
            return read_note(self.read(name), read)
        except (ObjectNotFoundError, ObjectMismatchError):
            return None

    def has(self, name: str, sha256: str) -> bool:
        """Tell whether an earlier run has left an object, and it is whole."""
        try:
            return hashlib.sha256(self.read(name)).hexdigest() == sha256
        except (ObjectNotFoundError, ObjectMismatchError):
            return False

    def charges(self, file_index: int) -> str:
        """Return the name of a dataset file's charges."""
        return f"{self.folder}/plan/charges-{file_index:06d}.arrow"

    def structure(self, file_index: int) -> str:
        """Return the name of a dataset file's structure summary."""
        return f"{self.folder}/plan/structure-{file_index:06d}.json"

    def scanned_range(self, name: str) -> str:
        """Return the name of a scanned key range's structure summary, written last."""
        return f"{self.folder}/plan/scanned-{name}.json"

    def scanned_charges(self, name: str) -> str:
        """Return the name of a scanned key range's charges."""
        return f"{self.folder}/plan/scanned-{name}.charges.arrow"

    def scanned_index(self, name: str) -> str:
        """Return the name of a scanned key range's index: rows and their keys."""
        return f"{self.folder}/plan/scanned-{name}.index.arrow"

    def interior(self, part_id: PartId) -> str:
        """Return the name of a part's interior, PartialState bytes without the boundary nodes; not left where parts are published at once."""
        return f"{self._parts(part_id.total)}/interior-{part_id.idx:06d}"

    def edge(self, part_id: PartId) -> str:
        """Return the name of a part's edge."""
        return f"{self._parts(part_id.total)}/edge-{part_id.idx:06d}"

    def build_summary(self, part_id: PartId) -> str:
        """Return the name of a part's build summary, written last."""
        return f"{self._parts(part_id.total)}/build-{part_id.idx:06d}.json"

    def boundary_nodes(self, num_parts: int, group: int) -> str:
        """Return the name of a file of boundary nodes: a record batch for each of some parts that have records."""
        return f"{self._parts(num_parts)}/boundary_nodes-{group:06d}.arrow"

    def _parts(self, num_parts: int) -> str:
        return f"{self.folder}/parts-of-{num_parts:06d}"

    def remove(self) -> None:
        """Delete everything in the folder."""
        self.store().delete_folder(self.folder)


def work_folder_for(url: str, dataset: ShardDataset) -> WorkFolder:
    """Return the work folder of a dataset, named by the digest of the dataset's files."""
    summary = dataset.summary
    content = [[file.name, file.sha256] for file in summary.all_files]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    return WorkFolder(url, f"{shard_folder(summary.context, summary.shard.shard_uid)}/work-{digest}")


def direct_work_folder(url: str, context: EpochContext, shard_uid: ShardUId, fingerprint: str) -> WorkFolder:
    """Return the work folder of a shard without a dataset, named by the source's fingerprint.

    Args:
        fingerprint: changes when the source's records could.
    """
    digest = hashlib.sha256(fingerprint.encode()).hexdigest()[:16]
    return WorkFolder(url, f"{shard_folder(context, shard_uid)}/direct-{digest}")
