"""A store that tries again after a transient fault, with growing, jittered waits, and gives up in bounded time.

Only TransientStoreError is tried again. A put or swap whose reply was lost is safe to repeat: the same bytes under the name count
as success.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import stamina

from pipelines.stores.remote_store import RemoteStore
from pipelines.stores.store import Data, ObjectInfo, Store
from schemas.errors import TransientStoreError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to go on. The clients of GCS and S3 retry a few times below this."""

    attempts_max: int = 6
    timeout_s: float = 180.0
    """No attempt starts later than this after the first."""
    wait_first_s: float = 0.5
    wait_max_s: float = 20.0
    wait_jitter_s: float = 1.0


@dataclass(frozen=True, slots=True)
class RetryingStore(RemoteStore):
    """Another store, its transient faults retried: in `open` those of every range, in `delete_folder` those of every object."""

    inner: Store
    policy: RetryPolicy = RetryPolicy()

    @property
    def url(self) -> str:
        """The inner store's."""
        return self.inner.url

    def local_root(self) -> Path | None:
        """The inner store's."""
        return self.inner.local_root()

    def put(self, name: str, data: Data, *, create_only: bool = False) -> ObjectInfo:
        """See `Store.put`."""
        return self._retry(lambda: self.inner.put(name, data, create_only=create_only))

    def get(self, name: str, start: int, stop: int) -> bytes:
        """See `Store.get`."""
        return self._retry(lambda: self.inner.get(name, start, stop))

    def info(self, name: str) -> ObjectInfo | None:
        """See `Store.info`."""
        return self._retry(lambda: self.inner.info(name))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Store.list`: held in memory whole, since a listing can't be resumed."""
        return iter(self._retry(lambda: tuple(self.inner.list(prefix))))

    def swap(self, name: str, data: Data, expected: ObjectInfo | None) -> ObjectInfo:
        """See `Store.swap`."""
        return self._retry(lambda: self.inner.swap(name, data, expected))

    def delete(self, name: str) -> None:
        """See `Store.delete`."""
        self._retry(lambda: self.inner.delete(name))

    def _retry(self, call: Callable[[], T]) -> T:
        policy = self.policy
        attempts = stamina.retry_context(
            on=TransientStoreError,
            attempts=policy.attempts_max,
            timeout=policy.timeout_s,
            wait_initial=policy.wait_first_s,
            wait_max=policy.wait_max_s,
            wait_jitter=policy.wait_jitter_s,
        )
        for attempt in attempts:
            with attempt:
                return call()
        raise AssertionError("stamina ended without a result and without an error")
