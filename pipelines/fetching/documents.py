"""Reads the small objects of an epoch, pointer, manifest, statements, headers, from whatever sources have them. Believes nothing.

A document without a digest is read from all sources at once, since only what all of them say shows who stands behind what; how long the
others are waited for once one has answered is bounded. One that was late before is not waited for again, nor one that has failed and is asked
again, where what the others say is known to be enough. What they say waits on the disk, so that a judge holds one offer at a time. A document that can be
judged by itself is raced: one source is asked, then more of them every `NEXT_SOURCE_AFTER_S`, sooner while not a byte comes, until
one has it right.

Every exception out of a source is a fault of that source.
"""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from tempfile import SpooledTemporaryFile, gettempdir
from typing import Final, TypeAlias, TypeVar

from pipelines.fetching.limits import FetchLimits
from pipelines.fetching.schedule import FailureKind
from pipelines.fetching.source import Cancellation, Source, WantedObject
from pipelines.fetching.source_account import SourceAccount
from pipelines.fetching.transfer import failure_of
from pipelines.stores.durable_file import disk_errors
from pipelines.trust.policy import Offer
from schemas.errors import FetchError, IntegrityError, ManifestError, ObjectNotFoundError, TransientStoreError

DOCUMENT_TIMEOUT_S: Final = 300.0
"""Longest that a document is waited for, all sources and attempts together."""

STRAGGLER_TIMEOUT_S: Final = 10.0
"""Longest that the other sources may take once one has answered, where all are asked: a store's client that has to start may need it."""

HTTP_STRAGGLER_S: Final = 2.0
"""The same for web servers, which need no such start, or three times what the first answer took."""

NEXT_SOURCE_AFTER_S: Final = 1.0
"""A race goes on without an answer for so long, then as many sources more are asked as are being asked."""

RACED_MAX: Final = 8
"""Most sources that a race asks at once; above it the one that was asked first is left, once it had `NEXT_SOURCE_AFTER_S`."""

SILENT_RACED_MAX: Final = 32
"""The same while not a byte has come."""

EXCHANGE_GRACE_S: Final = 30.0
EXCHANGE_BYTES_PER_S_MIN: Final = 64 << 10
"""An attempt may take the first, and a second more for so many bytes."""

LOOK_AGAIN_S: Final = 0.1
"""How often it is looked whether there is still a source to wait for."""

DOCUMENT_ATTEMPTS_MAX: Final = 4
"""Attempts at one document from one source."""

LATE: Final = "no answer in time"

HELD_BYTES_MAX: Final = 1 << 20
"""Longest document that is kept in memory while others are waited for."""

_Document: TypeAlias = SpooledTemporaryFile[bytes]

T = TypeVar("T")


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

    def read_all(self, name: str, bytes_max: int, is_enough: Callable[[bytes], bool] | None = None) -> Offers:
        """Return a document as each source has it, in the order of the sources; those that lack it, or are late, are left out.

        The caller closes it.

        Args:
            is_enough: told each document as it comes; whether those so far are enough. Until they are, sources that were late before are
                waited for too, and from then on nobody who has to be asked again. None where only all of them are, but for late ones.
        Raises:
            FetchError: no source has it.
        """
        asked = [source for source in self.sources if self._is_usable(source)]
        race = _Race(self, WantedObject(name, None, bytes_max), HELD_BYTES_MAX)
        for source in asked:
            race.ask(source)
        found: dict[str, _Document] = {}
        problems: dict[str, list[str]] = {}
        began_s = time.monotonic()
        deadline_s = began_s + DOCUMENT_TIMEOUT_S
        straggling_s = STRAGGLER_TIMEOUT_S
        enough = False

        def is_waited_for(source_id: str) -> bool:
            account = self.accounts[source_id]
            if is_enough is None:
                return not (found and account.is_late)
            return not (enough and (account.is_late or account.is_failing))

        while any(map(is_waited_for, list(race.running))):
            # A source that fails and is asked again is not reported.
            answered = race.wait(min(deadline_s - time.monotonic(), LOOK_AGAIN_S))
            if answered is None:
                if time.monotonic() >= deadline_s:
                    break
                continue
            source_id, answer = answered
            if isinstance(answer, str):
                problems[source_id] = [answer]
                continue
            self.accounts[source_id].is_late = self.accounts[source_id].is_failing = False
            if not found:
                straggling_s = min(STRAGGLER_TIMEOUT_S, max(HTTP_STRAGGLER_S, 3 * (time.monotonic() - began_s)))
            found[source_id] = answer
            enough = enough or (is_enough is not None and is_enough(_content(answer)))
            starting = any(source.traits.has_client_start for source in asked if source.source_id in race.running)
            deadline_s = min(deadline_s, time.monotonic() + (STRAGGLER_TIMEOUT_S if starting else straggling_s))
        for source_id in race.leave():
            problems[source_id] = [LATE]
        if not found:
            raise FetchError(problem="no source has the document", where=name, attempts=problems)
        return Offers(tuple((source.source_id, found[source.source_id]) for source in asked if source.source_id in found))

    def read_verified(self, name: str, size: int, sha256: str) -> VerifiedObject:
        """Return an object with the right bytes. A source that has others lies, if the digest is believed: that is the caller's to say.

        Raises:
            FetchError: no source has it.
        """
        other_bytes: dict[str, str] = {}

        def judge(data: bytes) -> bytes:
            if len(data) != size or hashlib.sha256(data).hexdigest() != sha256:
                raise ManifestError(problem=f"its bytes of {name} do not have the sha256 that the manifest says")
            return data

        source_id, data = self._first_right(WantedObject(name, size, size), judge, other_bytes)
        self.accounts[source_id].bytes_received += size
        return VerifiedObject(data, other_bytes)

    def read_judged(self, name: str, bytes_max: int, judge: Callable[[bytes], T], *, is_needed: bool = True) -> tuple[str, T]:
        """Return what a judge makes of the first object that it takes, and whose it is.

        Args:
            judge: raises where the bytes are not right, and then the next source counts. It is called in this thread.
            is_needed: False where the caller goes on without it: once one source has said that it has it not, or has it wrong, the
                others are not waited for any longer than where all are asked.
        Raises:
            FetchError: no source has it.
        """
        return self._first_right(WantedObject(name, None, bytes_max), judge, {}, is_needed=is_needed)

    def _first_right(
        self, wanted: WantedObject, judge: Callable[[bytes], T], refused: dict[str, str], *, is_needed: bool = True
    ) -> tuple[str, T]:
        """Race for an object; take up in ``refused`` whose bytes the judge did not take, and why."""
        waiting = sorted((source for source in self.sources if self._is_usable(source)), key=self._doubts)
        waiting.reverse()
        race = _Race(self, wanted, 0)
        problems: dict[str, list[str]] = {}
        deadline_s = time.monotonic() + DOCUMENT_TIMEOUT_S
        more = 1
        while waiting or race.running:
            if not is_needed and problems:
                asked = [*waiting, *(source for source in self.sources if source.source_id in race.running)]
                if all(self.accounts[source.source_id].is_late for source in asked):
                    break
                starting = any(source.traits.has_client_start for source in asked)
                deadline_s = min(deadline_s, time.monotonic() + (STRAGGLER_TIMEOUT_S if starting else HTTP_STRAGGLER_S))
            for _ in range(min(more, len(waiting))):
                if len(race.running) >= (RACED_MAX if race.is_sending else SILENT_RACED_MAX):
                    left = race.leave_first(NEXT_SOURCE_AFTER_S)
                    if left is None:
                        break
                    problems[left] = [LATE]
                race.ask(waiting.pop())
            left_s = deadline_s - time.monotonic()
            next_after_s = NEXT_SOURCE_AFTER_S if race.is_sending else self.limits.silent_after_s
            answered = race.wait(min(left_s, next_after_s) if waiting else left_s)
            if answered is None:
                if left_s <= next_after_s:
                    break
                more = len(race.running)
                continue
            more = 1
            source_id, answer = answered
            if not isinstance(answer, str):
                try:
                    with answer:
                        judged = judge(_content(answer))
                except Exception as error:
                    refused[source_id] = failure_of(error)[1]
                    # Another publisher's is no fault of its own: what follows, the caller says.
                    answer = f"refused: {refused[source_id]}"
                else:
                    race.leave(asked_for_s=NEXT_SOURCE_AFTER_S)
                    return source_id, judged
            problems[source_id] = [answer]
        for source_id in race.leave():
            problems[source_id] = [LATE]
        raise FetchError(problem="no source has the object", where=wanted.name, attempts=problems)

    def _is_usable(self, source: Source) -> bool:
        return source.traits.documents and not self.accounts[source.source_id].is_out

    def _doubts(self, source: Source) -> tuple[bool, int]:
        """Return what is held against a source: it decides which is asked first."""
        account = self.accounts[source.source_id]
        return account.is_late, account.errors + account.races_lost

    def attempts(
        self, source: Source, wanted: WantedObject, cancellation: Cancellation, held_bytes_max: int, sends: Callable[[], None]
    ) -> _Document | str:
        """Return the document, of a known size unless there is more, or what went wrong last. Called in a thread of its own.

        Args:
            held_bytes_max: length from which on it lies on the disk; 0 for never.
            sends: called when a byte has come.
        """
        account = self.accounts[source.source_id]
        problem = "not asked"
        for attempt in range(DOCUMENT_ATTEMPTS_MAX):
            retry_after_s = 0.0
            document: _Document = SpooledTemporaryFile(held_bytes_max)  # noqa: SIM115 - closed below unless it is returned
            is_kept = False
            try:
                size = _read(source, wanted, cancellation, document, sends)
                is_kept = size <= wanted.bytes_max if wanted.size is None else size >= wanted.size
                if is_kept:
                    return document
                account.is_failing = True
                if wanted.size is None:
                    problem = f"more than the {wanted.bytes_max} bytes that it can have"
                    account.note(problem)
                    return problem
                problem = f"it ended after {size} of {wanted.size} bytes"
            except IntegrityError as error:
                account.ban(error.problem)
                return error.problem
            except Exception as error:
                kind, problem, retry_after_s = failure_of(error)
                if kind is not FailureKind.TRANSIENT:
                    if not isinstance(error, ObjectNotFoundError):
                        account.note(problem)
                        account.is_failing = True
                    return problem
            finally:
                if not is_kept:
                    document.close()
            if cancellation.is_cancelled:
                break
            account.note(problem)
            account.is_failing = True
            pause_s = self.limits.backoff_first_s * 2.0**attempt * self.random.uniform(0.5, 1.0)
            if cancellation.wait(max(pause_s, min(retry_after_s, self.limits.retry_after_max_s))):
                break
        return problem


class _Race:
    """One object that several sources are asked for at once, each in a thread that does not keep the process alive."""

    def __init__(self, reader: DocumentReader, wanted: WantedObject, held_bytes_max: int) -> None:
        self._reader = reader
        self._wanted = wanted
        self._held_bytes_max = held_bytes_max
        self._answers: queue.SimpleQueue[tuple[str, _Document | str]] = queue.SimpleQueue()
        self._asked_s: dict[str, float] = {}
        self._handing_over = threading.Lock()
        self.running: dict[str, Cancellation] = {}
        """By source, in the order in which they were asked."""
        self._sending: set[str] = set()

    @property
    def is_sending(self) -> bool:
        """Whether any source that is asked has sent a byte."""
        return any(source_id in self._sending for source_id in self.running)

    def ask(self, source: Source) -> None:
        """Ask one more."""
        cancellation = self.running[source.source_id] = Cancellation()
        self._asked_s[source.source_id] = time.monotonic()

        def run() -> None:
            answer: _Document | str
            try:
                sends = partial(self._sending.add, source.source_id)
                answer = self._reader.attempts(source, self._wanted, cancellation, self._held_bytes_max, sends)
            except BaseException as error:
                # Nobody would hear of it in this thread.
                answer = f"unexpected {type(error).__name__}"
            # What is put is heard, or closed by the thread that leaves.
            with self._handing_over:
                if cancellation.is_cancelled and not isinstance(answer, str):
                    answer.close()
                    answer = LATE
                self._answers.put((source.source_id, answer))

        threading.Thread(target=run, name=f"document-{source.source_id}", daemon=True).start()

    def wait(self, timeout_s: float) -> tuple[str, _Document | str] | None:
        """Return the next answer, and whose it is; None where none comes in time. Sources that were left are not heard."""
        deadline_s = time.monotonic() + timeout_s
        while self.running:
            try:
                source_id, answer = self._answers.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                return None
            if self.running.pop(source_id, None) is not None:
                return source_id, answer
            if not isinstance(answer, str):
                answer.close()
        return None

    def leave_first(self, asked_for_s: float) -> str | None:
        """Wait no longer for the one that was asked first, where that is so long ago; return who that is."""
        source_id = next(iter(self.running))
        if time.monotonic() - self._asked_s[source_id] < asked_for_s:
            return None
        self._leave(source_id, late=True)
        return source_id

    def leave(self, asked_for_s: float = 0.0) -> list[str]:
        """Wait for no source any more; return those that have not answered.

        Args:
            asked_for_s: it is the fault of the sources that were asked so long ago.
        """
        left = list(self.running)
        now_s = time.monotonic()
        for source_id in left:
            self._leave(source_id, late=now_s - self._asked_s[source_id] >= asked_for_s)
        while not self._answers.empty():
            _, answer = self._answers.get()
            if not isinstance(answer, str):
                answer.close()
        return left

    def _leave(self, source_id: str, *, late: bool) -> None:
        with self._handing_over:
            self.running.pop(source_id).cancel()
        account = self._reader.accounts[source_id]
        account.races_lost += 1
        if late:
            account.is_late = True
            account.note(f"{LATE}: {self._wanted.name.rpartition('/')[2]}")


def _read(source: Source, wanted: WantedObject, cancellation: Cancellation, document: _Document, sends: Callable[[], None]) -> int:
    """Write a document's bytes, or one more than it can have; return how many.

    Raises:
        StoreError, IntegrityError: of the source, or of the disk.
    """
    size = 0
    began_s = time.monotonic()
    for buffer in source.stream(wanted, 0, cancellation):
        taken = memoryview(buffer)[: wanted.bytes_max + 1 - size]
        with disk_errors(Path(gettempdir())):
            document.write(taken)
        if taken and not size:
            sends()
        size += len(taken)
        if size > wanted.bytes_max:
            break
        seconds = time.monotonic() - began_s
        if seconds > EXCHANGE_GRACE_S + size / EXCHANGE_BYTES_PER_S_MIN:
            raise TransientStoreError(problem=f"it was not done after {seconds:.0f} s", where=wanted.name)
    if cancellation.is_cancelled:
        raise TransientStoreError(problem=LATE, where=wanted.name)
    return size


def _content(document: _Document) -> bytes:
    with disk_errors(Path(gettempdir())):
        document.seek(0)
        return document.read()
