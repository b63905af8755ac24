"""Reads the small objects of an epoch, pointer, manifest, statements, headers, from whatever sources have them. Believes nothing.

A document without a digest is read from all sources, since only what all of them say shows who stands behind what. One with a digest
is read from the first source that has the right bytes; who has others lies, if the digest is believed: that is the caller's to say.
"""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from pipelines.fetching.limits import FetchLimits
from pipelines.fetching.schedule import FailureKind
from pipelines.fetching.source import Cancellation, Source, WantedObject
from pipelines.fetching.source_account import SourceAccount
from pipelines.fetching.transfer import failure_of
from pipelines.trust.policy import Offer
from schemas.errors import FetchError, IntegrityError, StoreError, TransientStoreError

DOCUMENT_TIMEOUT_S: Final = 300.0
"""Longest that a document is waited for."""

STRAGGLER_TIMEOUT_S: Final = 10.0
"""How long the other sources may take once one has answered, where all are asked."""

DOCUMENT_ATTEMPTS_MAX: Final = 4
"""Attempts at one document from one source."""


@dataclass(frozen=True, slots=True)
class VerifiedObject:
    """An object with the right bytes."""

    data: bytes
    other_bytes: dict[str, str]
    """Sources that were asked before and have other bytes, each with what is wrong."""


@dataclass(slots=True)
class DocumentReader:
    """Reads documents from sources that have them."""

    sources: Sequence[Source]
    accounts: dict[str, SourceAccount]
    limits: FetchLimits
    random: Random

    def read_all(self, name: str, bytes_max: int) -> list[Offer]:
        """Return a document as each source has it, in the order of the sources; those that lack it are left out.

        Raises:
            FetchError: no source has it.
        """
        asked = self._usable()
        answers: queue.SimpleQueue[tuple[str, bytes | str]] = queue.SimpleQueue()
        cancellation = Cancellation()
        wanted = WantedObject(name, None, bytes_max)
        for source in asked:
            threading.Thread(
                target=lambda source=source: answers.put((source.source_id, self._attempts(source, wanted, cancellation))), daemon=True
            ).start()
        found: dict[str, bytes] = {}
        problems: dict[str, list[str]] = {}
        deadline_s = time.monotonic() + DOCUMENT_TIMEOUT_S
        while len(found) + len(problems) < len(asked):
            try:
                source_id, answer = answers.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                break
            if isinstance(answer, bytes):
                found[source_id] = answer
                deadline_s = min(deadline_s, time.monotonic() + STRAGGLER_TIMEOUT_S)
            else:
                problems[source_id] = [answer]
        cancellation.cancel()
        for source in asked:
            if source.source_id not in found and source.source_id not in problems:
                problems[source.source_id] = ["no answer in time"]
        if not found:
            raise FetchError(problem="no source has the document", where=name, attempts=problems)
        return [Offer(source.source_id, found[source.source_id]) for source in asked if source.source_id in found]

    def read_verified(self, name: str, size: int, sha256: str) -> VerifiedObject:
        """Return an object with the right bytes.

        Raises:
            FetchError: no source has it.
        """
        problems: dict[str, list[str]] = {}
        other_bytes: dict[str, str] = {}
        for source in self._usable():
            wanted = WantedObject(name, size, size)
            answer = self._attempts(source, wanted, Cancellation())
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
            answer = self._attempts(source, WantedObject(name, None, bytes_max), Cancellation())
            if isinstance(answer, bytes):
                return answer
            problems[source.source_id] = [answer]
        raise FetchError(problem="no source has the object", where=name, attempts=problems)

    def _usable(self) -> list[Source]:
        return [source for source in self.sources if source.traits.documents and not self.accounts[source.source_id].is_out]

    def _attempts(self, source: Source, wanted: WantedObject, cancellation: Cancellation) -> bytes | str:
        """Return the bytes, of a known size unless there are more, or what went wrong last."""
        account = self.accounts[source.source_id]
        problem = "not asked"
        for attempt in range(DOCUMENT_ATTEMPTS_MAX):
            retry_after_s = 0.0
            try:
                data = _read(source, wanted, cancellation)
                if wanted.size is not None and len(data) >= wanted.size:
                    return data
                if wanted.size is None:
                    return data if len(data) <= wanted.bytes_max else f"more than the {wanted.bytes_max} bytes that it can have"
                problem = f"it ended after {len(data)} of {wanted.size} bytes"
            except IntegrityError as error:
                account.ban(error.problem)
                return error.problem
            except StoreError as error:
                problem = error.problem
                kind, retry_after_s = failure_of(error)
                if kind is not FailureKind.TRANSIENT:
                    return problem
            account.note(problem)
            pause_s = self.limits.backoff_first_s * 2.0**attempt * self.random.uniform(0.5, 1.0)
            if cancellation.wait(max(pause_s, min(retry_after_s, self.limits.retry_after_max_s))):
                break
        return problem


def _read(source: Source, wanted: WantedObject, cancellation: Cancellation) -> bytes:
    """Return a document's bytes, or one more than it can have.

    Raises:
        StoreError, IntegrityError: of the source.
    """
    data = bytearray()
    deadline_s = time.monotonic() + DOCUMENT_TIMEOUT_S
    for buffer in source.stream(wanted, 0, cancellation):
        data += buffer
        if len(data) > wanted.bytes_max:
            break
        if time.monotonic() > deadline_s:
            raise TransientStoreError(problem=f"it was not done after {DOCUMENT_TIMEOUT_S:.0f} s", where=wanted.name)
    if cancellation.is_cancelled:
        raise TransientStoreError(problem="no answer in time", where=wanted.name)
    return bytes(data[: wanted.bytes_max + 1])
