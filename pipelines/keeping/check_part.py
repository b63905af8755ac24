"""Checks one published state part from the outside: stored bytes, decoded bytes, trie, key interval, pieces."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pipelines.kernel.choice import choose_kernel
from pipelines.kernel.part_check import decode_stated_part
from pipelines.kernel.trie_kernel import AppliedPart
from pipelines.stores.open_store import open_store
from schemas.errors import IntegrityError, ObjectNotFoundError
from schemas.ids import CryptoHash, PartId
from schemas.nearcore.state_part import Encoding
from schemas.published.manifest import Manifest
from schemas.published.manifest_shard import ManifestPart, ManifestShard
from schemas.published.object_layout import EpochLayout
from schemas.published.shard_statement import ShardStatement, StatementPart
from schemas.published.torrent import LEAF_BYTES, PartPieces, piece_hashes


@dataclass(frozen=True, slots=True)
class CheckedPart:
    """What the check of one part found."""

    object_name: str
    size: int
    """Stored bytes that were read."""
    records: int
    missing: bool
    problem: str | None
    """What is wrong, or None."""
    pieces: PartPieces | None
    """For the torrent; None where something is wrong."""


@dataclass(frozen=True, slots=True)
class CheckPartTask:
    """Reads one part and compares it with what manifest and statement say of it."""

    store_url: str
    object_name: str
    stored: ManifestPart
    stated: StatementPart | None
    """None to compare the stored bytes alone: what they decode to was judged before they were published."""
    part_id: PartId
    state_root: CryptoHash
    encoding: Encoding
    piece_length: int
    kernel_name: str

    def run(self) -> CheckedPart:
        """Check the part; what is wrong with it is a result, not an error.

        Raises:
            StoreError: the store can't be read.
        """
        try:
            data = open_store(self.store_url).get(self.object_name, 0, self.stored.size + 1)
        except ObjectNotFoundError:
            return CheckedPart(self.object_name, 0, 0, missing=True, problem="it is missing", pieces=None)
        try:
            records = self._verify(data)
            pieces = piece_hashes(data, self.piece_length)
            if self.stored.pieces_root is not None and pieces.v2_root.hex() != self.stored.pieces_root:
                raise IntegrityError(problem="its pieces root is not the manifest's")
        except IntegrityError as error:
            return CheckedPart(self.object_name, len(data), 0, missing=False, problem=str(error), pieces=None)
        return CheckedPart(self.object_name, len(data), records, missing=False, problem=None, pieces=pieces)

    def _verify(self, data: bytes) -> int:
        if len(data) > self.stored.size:
            raise IntegrityError(problem=f"it has more than the manifest's {self.stored.size} bytes")
        if len(data) != self.stored.size or hashlib.sha256(data).hexdigest() != self.stored.sha256:
            raise IntegrityError(problem=f"its {len(data)} bytes do not have the manifest's size and sha256")
        if self.stated is None:
            return 0
        decoded = decode_stated_part(data, self.encoding, self.stated.sha256, self.stated.decoded_size)
        applied = choose_kernel(self.kernel_name).apply(decoded, self.state_root, self.part_id)
        self._check_interval(applied, self.stated)
        return sum(batch.num_rows for batch in applied.records)

    def _check_interval(self, applied: AppliedPart, stated: StatementPart) -> None:
        """Compare the statement's key interval with the records; the first key of every part but the first is its boundary."""
        batches = [batch for batch in applied.records if batch.num_rows]
        if not batches:
            return
        first, last = batches[0].column(0)[0].as_py(), batches[-1].column(0)[batches[-1].num_rows - 1].as_py()
        begins = first == stated.key_begin or self.part_id.idx == 0
        if not begins or (stated.key_end is not None and last >= stated.key_end):
            raise IntegrityError(problem=f"its keys {first.hex()} to {last.hex()} are not the statement's interval")


def part_tasks(
    store_url: str,
    layout: EpochLayout,
    manifest: Manifest,
    shard: ManifestShard,
    *,
    statement: ShardStatement | None = None,
    kernel_name: str = "",
) -> list[CheckPartTask]:
    """Return the tasks that check a shard's parts; without a statement they compare the stored bytes alone, and hash their pieces."""
    return [
        CheckPartTask(
            store_url=store_url,
            object_name=layout.state_part(shard.shard_id, PartId(part.part_id, shard.num_parts)),
            stored=part,
            stated=None if statement is None else statement.parts[part.part_id],
            part_id=PartId(part.part_id, shard.num_parts),
            state_root=shard.state_root,
            encoding=manifest.encoding,
            piece_length=LEAF_BYTES if shard.torrent is None else shard.torrent.piece_length,
            kernel_name=kernel_name,
        )
        for part in shard.parts
    ]
