"""Publishes one state part: assemble, encode, put, read back, validate what was read.

An object that is already there is kept if it validates against the state root for its (part_id, num_parts), else replaced.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pipelines.kernel.choice import choose_kernel
from pipelines.kernel.protocol import Kernel
from pipelines.publishing.part_check import PartDigests, verify_part
from pipelines.stages.assemble import PartInputs, assemble_part
from pipelines.stages.plan import PartPlan
from pipelines.stores.open_store import open_store
from pipelines.stores.protocol import Store
from schemas.errors import IntegrityError, ObjectExistsError, ObjectMismatchError, ObjectNotFoundError
from schemas.ids import CryptoHash
from schemas.state_part import Encoding, encode_state_part
from schemas.torrent import PartPieces, piece_hashes


@dataclass(frozen=True, slots=True)
class PublishedPart:
    """One part as it lies in the store."""

    plan: PartPlan
    digests: PartDigests
    pieces: PartPieces
    reused: bool
    """The object was already there, whole and right."""


@dataclass(frozen=True, slots=True)
class PublishPartTask:
    """Publishes one part of a shard whose state root has come out right."""

    inputs: PartInputs
    plan: PartPlan
    state_root: CryptoHash
    store_url: str
    object_name: str
    encoding: Encoding
    zstd_level: int
    kernel_name: str
    piece_length: int
    validate: bool = True
    """Validate the trie of what was read back; its digest is compared always."""

    def run(self) -> PublishedPart:
        """Publish the part.

        Raises:
            ObjectMismatchError: the store gave back other bytes than it was given.
            IntegrityError, StoreError: as they say.
        """
        kernel = choose_kernel(self.kernel_name)
        store = open_store(self.store_url)
        existing = self._existing(kernel, store)
        if existing is not None:
            digests, pieces = existing
            return PublishedPart(self.plan, digests, pieces, reused=True)
        partial_state = assemble_part(kernel, self.inputs)
        data = encode_state_part(partial_state, self.encoding, self.zstd_level)
        put_replacing(store, self.object_name, data)
        read_back = store.get(self.object_name)
        where = f"{store.url}/{self.object_name}"
        if read_back != data:
            raise ObjectMismatchError(
                problem="the store gave back other bytes than it was given",
                where=where,
                remedy="Run again; if it stays so, distrust the store.",
            )
        if self.validate:
            digests = verify_part(kernel, read_back, self.encoding, self.state_root, self.plan.part_id)
            assert digests.decoded_size == partial_state.size, "what decodes is what was encoded"
        else:
            digests = PartDigests(
                len(data), hashlib.sha256(data).hexdigest(), partial_state.size, hashlib.sha256(partial_state).hexdigest()
            )
        return PublishedPart(self.plan, digests, piece_hashes(data, self.piece_length), reused=False)

    def _existing(self, kernel: Kernel, store: Store) -> tuple[PartDigests, PartPieces] | None:
        try:
            data = store.get(self.object_name)
            return verify_part(kernel, data, self.encoding, self.state_root, self.plan.part_id), piece_hashes(data, self.piece_length)
        except (ObjectNotFoundError, IntegrityError):
            return None


def put_replacing(store: Store, name: str, data: bytes) -> None:
    """Put an object, create-only where nothing is in the way; what is there and other is replaced, for the caller found it wrong."""
    try:
        store.put(name, data, create_only=True)
    except ObjectExistsError:
        store.put(name, data)
