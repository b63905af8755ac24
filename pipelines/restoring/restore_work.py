"""Names of what the tasks of a restored database leave each other, beside the folder that is to be made.

::

    .NAME.restoring/                     NAME is the folder that the user named; on the same file system, so that files can be linked
        lock                             held by the process that restores
        shard_uid=s0.v3-DIGEST/          by shard, state root, num_parts and format: other inputs never meet
            flat-000000.sst              FlatState rows of a part
            references-000000.arrow      nodes and values of a part with their counts, a record batch a bucket
            part-000000.json             summary of a part, written last
            state-0000.sst               State rows of a bucket of hashes
            state-0000.json              summary of a bucket, written last
        home/                            the database on its way; renamed to NAME when it is proved

The whole folder may be deleted at any time; a rerun makes it again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipelines.restoring.part_folder import ShardParts
from pipelines.restoring.rocksdb_writer import UNFINISHED_SUFFIX, writing
from pipelines.stores.durable_file import give_name
from pipelines.stores.regular_file import read_regular
from schemas.json_note import read_note

Value = TypeVar("Value")

WORK_FORMAT = 1
"""Counts up when what the tasks leave changes."""

PARTS_PER_BUCKET = 4
"""Parts' worth of nodes and values that one merge holds in memory: about 200 MB."""

WORK_SUMMARY_BYTES_MAX = 1 << 20
"""Largest summary that is read; one has two keys and a few numbers."""

BUCKETS_MAX = 4096
"""Most buckets of a shard."""


@dataclass(frozen=True, slots=True)
class RestoreWork:
    """Where one shard's intermediate files are; picklable."""

    folder: str
    bucket_count: int

    def flat(self, part: int) -> Path:
        """FlatState rows of a part."""
        return Path(self.folder, f"flat-{part:06d}.sst")

    def references(self, part: int) -> Path:
        """Nodes and values of a part with their counts."""
        return Path(self.folder, f"references-{part:06d}.arrow")

    def part_summary(self, part: int) -> Path:
        """Summary of a part."""
        return Path(self.folder, f"part-{part:06d}.json")

    def state(self, bucket: int) -> Path:
        """State rows of a bucket."""
        return Path(self.folder, f"state-{bucket:04d}.sst")

    def bucket_summary(self, bucket: int) -> Path:
        """Summary of a bucket."""
        return Path(self.folder, f"state-{bucket:04d}.json")

    def bucket_begin(self, bucket: int) -> bytes:
        """Return the first two bytes of the least hash of a bucket, as `pipelines.kernel.reference_counts.bucket_of` divides them."""
        return (-(-(bucket << 16) // self.bucket_count)).to_bytes(2, "big")


def work_folder(target: Path) -> Path:
    """Return the folder beside a target that its restoring works in."""
    return target.with_name(f".{target.name}.restoring")


def shard_work(target: Path, shard: ShardParts) -> RestoreWork:
    """Return where a shard's intermediate files are."""
    inputs = [WORK_FORMAT, str(shard.context.shard_uid), str(shard.state_root), len(shard.parts)]
    digest = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]
    bucket_count = min(BUCKETS_MAX, -(-len(shard.parts) // PARTS_PER_BUCKET) or 1)
    return RestoreWork(str(work_folder(target) / f"shard_uid={shard.context.shard_uid}-{digest}"), bucket_count)


def write_summary(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON file whole.

    Raises:
        StoreError: it can't be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(path.name + UNFINISHED_SUFFIX)
        unfinished.write_text(json.dumps(document, indent=1))
        give_name(unfinished, path)


def read_summary(path: Path, read: Callable[[dict[str, Any]], Value]) -> Value | None:
    """Return what ``read`` makes of a JSON file; None when it is not there or damaged, so that the work is done again."""
    try:
        return read_note(read_regular(path, WORK_SUMMARY_BYTES_MAX), read)
    except OSError:
        return None
