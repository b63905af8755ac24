"""One state part as it lies in a store, and what is known of it in advance."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pyarrow as pa

from pipelines.kernel.part_check import decode_stated_part
from pipelines.stores.open_store import open_store
from schemas.errors import IntegrityError, ObjectMismatchError, StatecastError
from schemas.ids import CryptoHash, PartId
from schemas.nearcore.state_part import Encoding, decode_state_part
from schemas.published.manifest_shard import STORED_BYTES_MAX


@dataclass(frozen=True, slots=True)
class PartObject:
    """Names a part, its place in the trie and, where a manifest or statement says them, its digests."""

    store_url: str
    name: str
    part_id: PartId
    state_root: CryptoHash
    encoding: Encoding
    stored_sha256: str | None = None
    """Of the stored bytes, in hexadecimal."""
    decoded_sha256: str | None = None
    """Of the PartialState bytes, in hexadecimal."""

    @property
    def where(self) -> str:
        """The part's place, for errors."""
        return f"{self.store_url}/{self.name}"

    def read(self) -> pa.Buffer:
        """Return the PartialState bytes, their digests compared. Whether they prove anything is the kernel's to say.

        Raises:
            ObjectNotFoundError, StoreError: the object can't be read.
            IntegrityError: it is over a limit, can't be decoded, or has another digest.
        """
        data = open_store(self.store_url).get(self.name, 0, STORED_BYTES_MAX + 1)
        if len(data) > STORED_BYTES_MAX:
            raise ObjectMismatchError(problem=f"a stored part has at most {STORED_BYTES_MAX} bytes", where=self.where)
        if self.stored_sha256 is not None and hashlib.sha256(data).hexdigest() != self.stored_sha256:
            raise ObjectMismatchError(
                problem=f"its {len(data)} bytes do not have the manifest's sha256", where=self.where, remedy="Fetch this part again."
            )
        try:
            if self.decoded_sha256 is None:
                return decode_state_part(data, self.encoding)
            return decode_stated_part(data, self.encoding, self.decoded_sha256)
        except IntegrityError as error:
            raise located(error, self.where) from None


def located(error: StatecastError, where: str) -> StatecastError:
    """Return an error of the same class that names the object as its place."""
    problem = f"{error.problem} [{error.where}]" if error.where else error.problem
    return type(error)(problem=problem, where=where, remedy=error.remedy or "Fetch this part again.")
