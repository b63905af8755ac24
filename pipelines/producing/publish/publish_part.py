"""Publishes one state part: assemble, encode, validate, put, read back and compare.

An object that is already there is kept if it validates against the state root for its (part_id, num_parts), else replaced. Of
two producers at once the first valid object stays. A part whose boundary nodes came from a State column is built here as well, and put
before its shard's root has come out: it has validated alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias, TypeVar

from pipelines.execution.stage_runner import Amount
from pipelines.kernel.choice import choose_kernel
from pipelines.kernel.part_check import PartDigests, verify_part
from pipelines.kernel.trie_kernel import Kernel
from pipelines.producing.build.assemble import assemble_part, assemble_with
from pipelines.producing.build.build_part import BuildPartTask, BuildSummary
from pipelines.producing.build.plan_parts import PartInterval, PartPlan
from pipelines.producing.build.work_folder import WorkFolder
from pipelines.stores.compare_and_swap import swapped
from pipelines.stores.open_store import open_store
from pipelines.stores.ranges import read_object, reads_back
from pipelines.stores.store import ObjectInfo, Store
from pipelines.stores.upload_limit import keep_upload_limit
from schemas.errors import IntegrityError, ObjectExistsError, ObjectMismatchError, ObjectNotFoundError, StateRootMismatchError
from schemas.ids import CryptoHash
from schemas.nearcore.state_part import Encoding, encode_state_part
from schemas.published.manifest_shard import STORED_BYTES_MAX
from schemas.published.torrent import PartPieces


@dataclass(frozen=True, slots=True)
class PublishedPart:
    """One part as it lies in the store."""

    interval: PartInterval
    records: int
    digests: PartDigests
    pieces: PartPieces
    reused: bool
    """The object was already there, whole and right."""

    @property
    def amount(self) -> Amount:
        """What a stage shows of it."""
        return Amount(records=self.records, size=self.digests.stored_size, parts=1)


Judged = TypeVar("Judged")
"""What is known of a part's object."""


@dataclass(frozen=True, slots=True)
class PartPlace:
    """Where one part is published."""

    store_url: str
    object_name: str
    upload_limit_bytes_per_s: int | None = None
    """Most bytes a second that this process puts; None for no limit."""

    def put(self, make: Callable[[], tuple[bytes, Judged]], judge: Callable[[bytes], Judged]) -> tuple[Judged, bool]:
        """Publish the part, made only where nothing right is there already; what is put is read back and compared.

        Args:
            make: the object, and what is known of it.
            judge: what is known of an object that is there; raises IntegrityError where it is not this part.
        Returns:
            What is known of the object, and whether it was there.
        Raises:
            ObjectMismatchError: the store gave back other bytes than it was given.
            ObjectExistsError: other producers were faster each time.
            IntegrityError, StoreError: passed on.
        """
        store = open_store(self.store_url)
        made = cache(make)

        def needed(info: ObjectInfo | None) -> tuple[bytes | None, tuple[Judged] | None]:
            # Where another producer was faster, what it left is judged like anything that is found.
            existing = None if info is None else self._existing(store, judge)
            if existing is not None:
                return None, existing
            keep_upload_limit(self.upload_limit_bytes_per_s, len(made()[0]))
            return made()[0], None

        reused = swapped(store, self.object_name, needed)
        if reused is not None:
            return *reused, True
        data, known = made()
        if not reads_back(store, self.object_name, data):
            raise ObjectMismatchError(
                problem="the store gave back other bytes than it was given",
                where=f"{store.url}/{self.object_name}",
                remedy="Run again; if it stays so, distrust the store.",
            )
        return known, False

    def _existing(self, store: Store, judge: Callable[[bytes], Judged]) -> tuple[Judged] | None:
        try:
            return (judge(read_object(store, self.object_name, STORED_BYTES_MAX)),)
        except (ObjectNotFoundError, IntegrityError):
            return None


PartFacts: TypeAlias = tuple[PartDigests, PartPieces, BuildSummary | None]
"""What is known of a part's object; with the summary of its build where it was built for that."""

MakePart: TypeAlias = Callable[[Kernel], tuple[bytes, PartFacts]]
"""Makes a part's object."""


@dataclass(frozen=True, slots=True)
class PublishPartTask:
    """Publishes one part of a shard whose state root has come out right."""

    work: WorkFolder
    plan: PartPlan
    place: PartPlace
    state_root: CryptoHash
    encoding: Encoding
    zstd_level: int
    kernel_name: str
    piece_length: int
    validate: bool = True
    """Validate the trie before the part is put; what is read back is compared always."""

    def run(self) -> PublishedPart:
        """Publish the part.

        Raises:
            ObjectMismatchError: the store gave back other bytes than it was given.
            ObjectExistsError: other producers were faster each time.
            IntegrityError, StoreError: passed on.
        """
        return self.publish(self._make)[0]

    def publish(self, make: MakePart) -> tuple[PublishedPart, BuildSummary | None]:
        """Publish the part, made only where nothing right is there already.

        Returns:
            The part, and the summary that `make` gave; None where what was there is kept.
        Raises:
            As `run`.
        """
        kernel = choose_kernel(self.kernel_name)
        (digests, pieces, build), reused = self.place.put(lambda: make(kernel), lambda data: (*self._verified(kernel, data), None))
        return PublishedPart(self.plan.interval, self.plan.records, digests, pieces, reused), build

    def _make(self, kernel: Kernel) -> tuple[bytes, PartFacts]:
        """Assemble, encode and validate the part. What is put was validated, and what is read back is compared with it byte by byte."""
        if not self.validate:
            partial_state = assemble_part(kernel, self.work, self.plan)
            data = encode_state_part(partial_state, self.encoding, self.zstd_level)
            stored_sha256, pieces = kernel.digest_object(data, self.piece_length)
            decoded_sha256 = hashlib.sha256(partial_state).hexdigest()
            return data, (PartDigests(len(data), stored_sha256.hex(), partial_state.size, decoded_sha256), pieces, None)
        data = encode_state_part(assemble_part(kernel, self.work, self.plan), self.encoding, self.zstd_level)
        try:
            return self.validated(kernel, data)
        except IntegrityError as error:
            # Its records hash to the state root, so what the build left for this part is damaged, not the source.
            folder = f"{self.work.url}/{self.work.folder}"
            raise error.at(
                f"part {self.plan.part_id}, made from {folder}" + (f": {error.where}" if error.where else ""),
                "What an earlier stage left in that folder is damaged: delete it and run again. Nothing of this part was put.",
            ) from None

    def validated(self, kernel: Kernel, data: bytes, build: BuildSummary | None = None) -> tuple[bytes, PartFacts]:
        """Validate what an object decodes to; return both.

        Raises:
            IntegrityError: the bytes are not this part of the state root.
        """
        return data, (*self._verified(kernel, data), build)

    def _verified(self, kernel: Kernel, data: bytes) -> tuple[PartDigests, PartPieces]:
        return verify_part(kernel, data, self.encoding, self.state_root, self.plan.part_id, piece_length=self.piece_length)


@dataclass(frozen=True, slots=True)
class ProducePartTask:
    """Builds and publishes one part of a shard whose boundary nodes come from a State column, by hash from the trusted state root.

    The part is always validated, for its shard's root is still to come out. Its edge is left for that.
    """

    publishing: PublishPartTask
    build: BuildPartTask | None
    """None for a part without records."""

    def run(self) -> tuple[PublishedPart, BuildSummary | None]:
        """Build and publish the part; one that is there and validates is kept, and only its edge made where that is not left.

        Returns:
            The part, and its build; None for a part without records.
        Raises:
            StateRootMismatchError: the part does not validate: its records are not those of the trusted state root. Nothing is put.
            DatasetError, IntegrityError, StoreError: as `BuildPartTask` and `PublishPartTask`.
        """
        part, summary = self.publishing.publish(self._make)
        return part, None if self.build is None else summary or self.build.edge()

    def _make(self, kernel: Kernel) -> tuple[bytes, PartFacts]:
        data, summary = self._encoded(kernel)
        try:
            return self.publishing.validated(kernel, data, summary)
        except IntegrityError as error:
            raise self._contradiction(error) from None

    def _encoded(self, kernel: Kernel) -> tuple[bytes, BuildSummary | None]:
        # The part is gone when this returns: what the object decodes to takes its place in memory.
        publishing = self.publishing
        if self.build is None:
            summary, partial_state = None, assemble_with(kernel, publishing.work, publishing.plan, None)
        else:
            summary, partial_state = self.build.part()
        return encode_state_part(partial_state, publishing.encoding, publishing.zstd_level), summary

    def _contradiction(self, error: IntegrityError) -> StateRootMismatchError:
        plan = self.publishing.plan
        begin = plan.key_begin.hex() or "the first"
        end = "the last" if plan.key_end is None else f"before {plan.key_end.hex()}"
        return StateRootMismatchError(
            problem=f"the records of part {plan.part_id} contradict state root {self.publishing.state_root}: {error.problem}",
            where=f"{self.publishing.place.object_name}, keys {begin} to {end}",
            remedy="The source does not hold this epoch's state: a record is changed, missing or too many. Nothing of this part was put; "
            "parts that were put have validated against the state root, each alone.",
            expected=str(self.publishing.state_root),
            part_id=plan.part_id.idx,
        )


def put_replacing(store: Store, name: str, data: bytes) -> None:
    """Put an object, create-only where nothing is in the way; what is there and other is replaced, for the caller found it wrong."""
    try:
        store.put(name, data, create_only=True)
    except ObjectExistsError:
        store.put(name, data)
