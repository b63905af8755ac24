"""What the stores of object services have in common: where they lie, reads of ranges, and their clients' errors as errors of a store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipelines.stores.bucket_folder import BucketFolder
from pipelines.stores.object_names import check_range
from pipelines.stores.ranges import checked_length
from pipelines.stores.remote_store import RemoteStore
from pipelines.stores.store import ObjectInfo
from schemas.errors import ObjectNotFoundError, StatecastError, StoreDeniedError, StoreError


@dataclass(frozen=True, slots=True)
class BucketStore(RemoteStore, ABC):
    """A folder of a bucket. Credentials are found as the provider's own clients find them."""

    location: BucketFolder
    endpoint_url: str | None = None
    """Another server than the provider's; None for what the clients' own environment says."""
    anonymous: bool = False
    """Use no credentials."""

    @property
    def url(self) -> str:
        """``scheme://bucket/folder``."""
        return self.location.url

    @abstractmethod
    def info(self, name: str) -> ObjectInfo | None:
        """See `Store.info`."""

    def get(self, name: str, start: int, stop: int) -> bytes:
        """See `Store.get`."""
        check_range(start, stop)
        if start == stop:
            if self.info(name) is None:
                raise ObjectNotFoundError(problem="no such object", where=self._where(name))
            return b""
        try:
            with self._mapped(name):
                return checked_length(self._read(name, start, stop), stop - start, self._where(name))
        except StoreError as error:
            if error.__cause__ is not None and self._is_past_end(error.__cause__):
                return b""
            raise

    @abstractmethod
    def _read(self, name: str, start: int, stop: int) -> bytes:
        """Return what the server gives of a range that is not empty, from ``start`` on; the client's errors are passed on."""

    @abstractmethod
    def _is_past_end(self, error: BaseException) -> bool:
        """Tell whether a client's error says that an object ends before a range."""

    @abstractmethod
    def _store_error(self, error: Exception, where: str, *, writing: bool) -> StoreError:
        """Return the store's error for a client's."""

    @abstractmethod
    def _no_credentials(self, error: Exception) -> str:
        """Return how to give credentials, where a refusal is due to the lack of them; else nothing. It is known after the first request."""

    @contextmanager
    def _mapped(self, name: str, *, writing: bool = False) -> Iterator[None]:
        """Turn the client's errors into errors of a store."""
        try:
            yield
        except StatecastError:
            raise
        except Exception as error:
            # Only a condition of ours makes it: without one it is an answer like others.
            if writing and isinstance(error, FileExistsError):
                raise
            mapped = self._store_error(error, self._where(name), writing=writing)
            if isinstance(mapped, StoreDeniedError) and (remedy := self._no_credentials(error)):
                mapped.remedy = f"No credentials were used: {remedy}"
            raise mapped from error

    def _where(self, name: str) -> str:
        return f"{self.location.url}/{name}"
