"""Reads the small objects of an epoch, pointer, manifest, statements, headers, from whatever sources have them. Believes nothing.

A document without a digest is read from all sources, since only what all of them say shows who stands behind what; what they say waits on
the disk, so that who judges it holds one offer at a time. One with a digest
is read from the first source that has the right bytes; who has others lies, if the digest is believed: that is the caller's to say.
"""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import SpooledTemporaryFile, gettempdir
from typing import Final, TypeAlias

from pipelines.fetching.limits import FetchLimits
from pipelines.fetching.schedule import FailureKind
from pipelines.fetching.source import Cancellation, Source, WantedObject
from pipelines.fetching.source_account import SourceAccount
from pipelines.fetching.transfer import failure_of
from pipelines.stores.durable_file import disk_errors
from pipelines.trust.policy import Offer
from schemas.errors import FetchError, IntegrityError, StoreError, TransientStoreError

DOCUMENT_TIMEOUT_S: Final = 300.0
"""Longest that a document is waited for."""

STRAGGLER_TIMEOUT_S: Final = 10.0
"""How long the other sources may take once one has answered, where all are asked."""

DOCUMENT_ATTEMPTS_MAX: Final = 4
"""Attempts at one document from one source."""


HELD_BYTES_MAX: Final = 1 << 20
"""Longest document that is kept in memory while others are waited for."""

_Document: TypeAlias = SpooledTemporaryFile[bytes]


@dataclass(frozen=True, slots=True)
class VerifiedObject:
    """An object with the right bytes."""

    data: bytes
    other_bytes: dict[str, str]
    """Sources that were asked before and have other bytes, each with what is wrong."""


@dataclass(frozen=True, slots=True)
class Offers:
    """A document as several sources have it, in the order of the sources. Each loop over it reads one after the other."""

    documents: tuple[tuple[str, _Document], ...]

    def __iter__(self) -> Iterator[Offer]:
        for source_id, document in self.documents:
            yield Offer(source_id, _content(document))

    def close(self) -> None:
        """Let go of all."""
        for _, document in self.documents:
            document.close()


@dataclass(slots=True)
class DocumentReader:
    """Reads documents from sources that have them."""

    sources: Sequence[Source]
    accounts: dict[str, SourceAccount]
    limits: FetchLimits
    random: Random

    def read_all(self, name: str, bytes_max: int) -> Offers:
        """Return a document as each source has it, in the order of the sources; those that lack it are left out. Whoever gets it closes it.

        Raises:
            FetchError: no source has it.
        """
        asked = self._usable()
        answers: queue.SimpleQueue[tuple[str, _Document | str]] = queue.SimpleQueue()
        cancellation = Cancellation()
        wanted = WantedObject(name, None, bytes_max)

        def ask(source: Source) -> None:
            answers.put((source.source_id, self._attempts(source, wanted, cancellation, HELD_BYTES_MAX)))
            if cancellation.is_cancelled:
                _close_all(answers)

        for source in asked:
            threading.Thread(target=ask, args=(source,), daemon=True).start()
        found: dict[str, _Document] = {}
        problems: dict[str, list[str]] = {}
        deadline_s = time.monotonic() + DOCUMENT_TIMEOUT_S
        while len(found) + len(problems) < len(asked):
            try:
                source_id, answer = answers.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                break
            if not isinstance(answer, str):
                found[source_id] = answer
                deadline_s = min(deadline_s, time.monotonic() + STRAGGLER_TIMEOUT_S)
            else:
                problems[source_id] = [answer]
        cancellation.cancel()
        _close_all(answers)
        for source in asked:
            if source.source_id not in found and source.source_id not in problems:
                problems[source.source_id] = ["no answer in time"]
        if not found:
            raise FetchError(problem="no source has the document", where=name, attempts=problems)
        return Offers(tuple((source.source_id, found[source.source_id]) for source in asked if source.source_id in found))

    def read_verified(self, name: str, size: int, sha256: str) -> VerifiedObject:
        """Return an object with the right bytes.

        Raises:
            FetchError: no source has it.
        """
        problems: dict[str, list[str]] = {}
        other_bytes: dict[str, str] = {}
        for source in self._usable():
            answer = self._content(source, WantedObject(name, size, size))
            account = self.accounts[source.source_id]
            if isinstance(answer, str):
                problems[source.source_id] = [answer]
            elif len(answer) == size and hashlib.sha256(answer).hexdigest() == sha256:
                account.bytes_received += size
                return VerifiedObject(answer, other_bytes)
            else:
                other_bytes[source.source_id] = f"its bytes of {name} do not have the sha256 that the manifest says"
                problems[source.source_id] = ["its bytes do not have the sha256 that the manifest says"]
        raise FetchError(problem="no source has the object", where=name, attempts=problems)

    def read_any(self, name: str, bytes_max: int) -> bytes:
        """Return an object as the first source has it that has it at all.

        Raises:
            FetchError: no source has it.
        """
        problems: dict[str, list[str]] = {}
        for source in self._usable():
            answer = self._content(source, WantedObject(name, None, bytes_max))
            if isinstance(answer, bytes):
                return answer
            problems[source.source_id] = [answer]
        raise FetchError(problem="no source has the object", where=name, attempts=problems)

    def _usable(self) -> list[Source]:
        return [source for source in self.sources if source.traits.documents and not self.accounts[source.source_id].is_out]

    def _content(self, source: Source, wanted: WantedObject) -> bytes | str:
        """Return the bytes, or what went wrong last."""
        answer = self._attempts(source, wanted, Cancellation(), 0)
        if isinstance(answer, str):
            return answer
        with answer:
            return _content(answer)

    def _attempts(self, source: Source, wanted: WantedObject, cancellation: Cancellation, held_bytes_max: int) -> _Document | str:
        """Return the document, of a known size unless there is more, or what went wrong last.

        Args:
            held_bytes_max: length from which on it lies on the disk; 0 for never.
        """
        account = self.accounts[source.source_id]
        problem = "not asked"
        for attempt in range(DOCUMENT_ATTEMPTS_MAX):
            retry_after_s = 0.0
            document: _Document = SpooledTemporaryFile(held_bytes_max)  # noqa: SIM115 - closed below unless it is returned
            is_kept = False
            try:
                size = _read(source, wanted, cancellation, document)
                is_kept = size <= wanted.bytes_max if wanted.size is None else size >= wanted.size
                if is_kept:
                    return document
                if wanted.size is None:
                    return f"more than the {wanted.bytes_max} bytes that it can have"
                problem = f"it ended after {size} of {wanted.size} bytes"
            except IntegrityError as error:
                account.ban(error.problem)
                return error.problem
            except StoreError as error:
                problem = error.problem
                kind, retry_after_s = failure_of(error)
                if kind is not FailureKind.TRANSIENT:
                    return problem
            finally:
                if not is_kept:
                    document.close()
            account.note(problem)
            pause_s = self.limits.backoff_first_s * 2.0**attempt * self.random.uniform(0.5, 1.0)
            if cancellation.wait(max(pause_s, min(retry_after_s, self.limits.retry_after_max_s))):
                break
        return problem


def _read(source: Source, wanted: WantedObject, cancellation: Cancellation, document: _Document) -> int:
    """Write a document's bytes, or one more than it can have; return how many.

    Raises:
        StoreError, IntegrityError: of the source, or of the disk.
    """
    size = 0
    deadline_s = time.monotonic() + DOCUMENT_TIMEOUT_S
    for buffer in source.stream(wanted, 0, cancellation):
        taken = memoryview(buffer)[: wanted.bytes_max + 1 - size]
        with disk_errors(Path(gettempdir())):
            document.write(taken)
        size += len(taken)
        if size > wanted.bytes_max:
            break
        if time.monotonic() > deadline_s:
            raise TransientStoreError(problem=f"it was not done after {DOCUMENT_TIMEOUT_S:.0f} s", where=wanted.name)
    if cancellation.is_cancelled:
        raise TransientStoreError(problem="no answer in time", where=wanted.name)
    return size


def _content(document: _Document) -> bytes:
    with disk_errors(Path(gettempdir())):
        document.seek(0)
        return document.read()


def _close_all(answers: queue.SimpleQueue[tuple[str, _Document | str]]) -> None:
    """Let go of what came too late to be judged."""
    with suppress(queue.Empty):
        while True:
            answer = answers.get_nowait()[1]
            if not isinstance(answer, str):
                answer.close()
