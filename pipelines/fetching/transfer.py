"""One transfer: a part's bytes from one source into a temporary file, counted, paced and digested while they come.

A transfer never reads further than one byte past the size that the manifest says. What an attempt got before its connection broke
is kept with its digest state, so that the next attempt at the same source can go on from there; bytes of two sources are never
joined, so that a wrong digest has one culprit.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.fetching.schedule import FailureKind
from pipelines.fetching.source import Cancellation, Source, WantedObject
from pipelines.fetching.throttle import Throttle
from pipelines.stores.durable_file import disk_errors, write_all
from schemas.errors import (
    IntegrityError,
    RangeRefusedError,
    StatecastError,
    StoreDeniedError,
    StoreError,
    TransientStoreError,
)

if TYPE_CHECKING:
    from hashlib import _Hash


@dataclass(slots=True)
class PartialFile:
    """What was received of one part from one source."""

    path: Path
    size: int = 0
    digest: _Hash = field(default_factory=hashlib.sha256)


@dataclass(frozen=True, slots=True)
class TransferEnd:
    """How a transfer ended: with neither failure nor fatal error the file is whole and has the right digest."""

    transfer_id: int
    failure: FailureKind | None = None
    problem: str = ""
    gained: int = 0
    retry_after_s: float = 0.0
    fatal: BaseException | None = None
    """A fault of this machine or of ours, which no other source mends."""


class TransferThread:
    """Runs one transfer in a thread that does not keep the process alive: a source that hangs must not.

    Args:
        partial: where to write; with a size, what an earlier attempt at the same source left.
        sha256: of the whole object, in hexadecimal.
        ended: called once from the thread.
    """

    def __init__(
        self,
        transfer_id: int,
        source: Source,
        wanted: WantedObject,
        *,
        sha256: str,
        partial: PartialFile,
        throttle: Throttle,
        ended: Callable[[TransferEnd], None],
    ) -> None:
        self.partial = partial
        self.received = 0
        """Bytes of this attempt, read by the driver at any time."""
        self.heartbeats = 0
        """Buffers of this attempt, empty ones too."""
        self.cancellation = Cancellation()
        self._transfer_id = transfer_id
        self._source = source
        self._wanted = wanted
        self._sha256 = sha256
        self._throttle = throttle
        self._ended = ended
        self._thread = threading.Thread(target=self._run, name=f"transfer-{transfer_id}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for the end, but not longer than this."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            end = self._transfer()
        except BaseException as error:
            # It would be lost in this thread; the driver raises it.
            end = TransferEnd(self._transfer_id, fatal=error)
        self._ended(end)

    def _transfer(self) -> TransferEnd:
        assert self._wanted.size is not None
        start = self.partial.size
        try:
            self._receive(start)
            if self.cancellation.is_cancelled:
                return TransferEnd(self._transfer_id)
            if self.partial.size > self._wanted.size:
                return self._failed(FailureKind.WRONG, f"it sends more than the {self._wanted.size} bytes of the object")
            if self.partial.size < self._wanted.size:
                # The source holds this for the whole object: nothing is gained that asking again would add to.
                problem = f"it ended after {self.partial.size} of {self._wanted.size} bytes"
                return TransferEnd(self._transfer_id, FailureKind.TRANSIENT, problem)
            if self.partial.digest.hexdigest() != self._sha256:
                return self._failed(FailureKind.WRONG, "its bytes do not have the sha256 that the manifest says")
        except IntegrityError as error:
            return self._failed(FailureKind.WRONG, error.problem)
        except _LocalError as error:
            return TransferEnd(self._transfer_id, fatal=error.error)
        except Exception as error:
            kind, problem, retry_after_s = failure_of(error)
            return self._failed(kind, problem, retry_after_s)
        return TransferEnd(self._transfer_id)

    def _receive(self, start: int) -> None:
        assert self._wanted.size is not None
        with _local(self.partial.path):
            file = open(self.partial.path, "r+b" if start else "wb", buffering=0)  # noqa: SIM115 - closed below, errors told apart
        with closing(file):
            with _local(self.partial.path):
                file.seek(start)
            for buffer in self._source.stream(self._wanted, start, self.cancellation):
                self.heartbeats += 1
                if self.cancellation.is_cancelled:
                    return
                view = memoryview(buffer)[: self._wanted.size + 1 - self.partial.size]
                with _local(self.partial.path):
                    write_all(file.fileno(), view)
                self.partial.digest.update(view)
                self.partial.size += view.nbytes
                self.received += view.nbytes
                if self.partial.size > self._wanted.size:
                    return
                self._throttle.wait_for(view.nbytes, self.cancellation)
            with _local(self.partial.path):
                os.fsync(file.fileno())

    def _failed(self, kind: FailureKind, problem: str, retry_after_s: float = 0.0) -> TransferEnd:
        return TransferEnd(self._transfer_id, kind, problem, self.received, retry_after_s)


def failure_of(error: Exception) -> tuple[FailureKind, str, float]:
    """Return what an exception out of a source means for it, in words too, and the pause that it asked for in seconds.

    What no source should raise is its fault all the same: it means that the object can't be had there.

    Raises:
        MemoryError: this machine's, and nobody else's.
    """
    match error:
        case TransientStoreError():
            return FailureKind.TRANSIENT, error.problem, error.retry_after_s
        case RangeRefusedError():
            return FailureKind.RANGE_REFUSED, error.problem, 0.0
        case StoreDeniedError():
            return FailureKind.DENIED, error.problem, 0.0
        case StatecastError():
            return FailureKind.ABSENT, error.problem, 0.0
        case MemoryError():
            raise error
    return FailureKind.ABSENT, f"unexpected {type(error).__name__}: {str(error)[:200]}", 0.0


class _LocalError(Exception):
    """Carries an error of the local disk past the handler of the source's errors. Never leaves this module."""

    def __init__(self, error: StoreError) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def _local(path: Path) -> Iterator[None]:
    """Mark errors of the local disk."""
    try:
        with disk_errors(path):
            yield
    except StoreError as error:
        raise _LocalError(error) from error
