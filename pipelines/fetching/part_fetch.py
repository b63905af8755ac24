"""Fetches many parts: the schedule decides, threads transfer, worker processes verify, and this loop ties them together.

Everything that threads and processes have to say comes through one queue; the schedule, the accounts and the target are touched by the
calling thread alone. In memory are the buffers of running transfers; on disk, beside what is verified, the temporary files of at
most `FetchLimits.parts_in_flight` parts and their hedges.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from pipelines.fetching.epoch_target import EpochTarget, HeldPart
from pipelines.fetching.fetch_part import FetchPart
from pipelines.fetching.fetch_progress import FetchWatcher
from pipelines.fetching.limits import FetchLimits
from pipelines.fetching.meter import Meter
from pipelines.fetching.schedule import FailureKind, Schedule, Transfer
from pipelines.fetching.source import Source
from pipelines.fetching.source_account import SourceAccount
from pipelines.fetching.throttle import Throttle
from pipelines.fetching.transfer import PartialFile, TransferEnd, TransferThread
from pipelines.fetching.verifier import Verifier, VerifyPartTask
from pipelines.stores.durable_file import disk_errors
from pipelines.stores.pace import Pace
from schemas.errors import FetchError, IntegrityError

TICK_S: Final = 0.1
"""How often transfers are looked at while they run."""

JOIN_TIMEOUT_S: Final = 0.5
"""How long cancelled transfers are waited for at the end; a source that hangs is left behind."""

FAILED_PARTS_NAMED_MAX: Final = 5


@dataclass(slots=True)
class PartFetch:
    """A fetch of parts into an open target."""

    target: EpochTarget
    sources: Sequence[Source]
    accounts: Mapping[str, SourceAccount]
    verifier: Verifier
    kernel_name: str
    limits: FetchLimits
    random: Random
    watcher: FetchWatcher

    def reuse(self, parts: Sequence[FetchPart], *, keep_others: bool = False) -> list[FetchPart]:
        """Verify what lies under the final names of parts; remove what is not right. Return the parts that are there and right.

        Args:
            keep_others: leave what is not right, which another manifest may list, until the right part takes its place.
        Raises:
            StoreError: what is there can't be read or removed.
        """
        answers: queue.SimpleQueue[tuple[FetchPart, str | None, BaseException | None]] = queue.SimpleQueue()
        right: list[FetchPart] = []
        window: deque[tuple[FetchPart, HeldPart]] = deque()
        for part, held in self.target.present(parts):
            if held is None:
                right.append(part)
            else:
                window.append((part, held))
        running = 0
        while window or running:
            while window and running < self.limits.parts_in_flight:
                part, held = window.popleft()
                task = VerifyPartTask(held, part, self.kernel_name, check_stored=True)
                self.verifier.submit(task, lambda problem, error, part=part: answers.put((part, problem, error)))  # type: ignore[misc]
                running += 1
            part, problem, error = answers.get()
            running -= 1
            if error is not None:
                raise error
            if problem is None:
                right.append(part)
                continue
            if keep_others:
                continue
            self.target.remove(part.object_name)
            self.watcher.event("note", {"text": f"{part.object_name} was here and not right ({problem}); it is fetched again"})
        return sorted(right, key=lambda part: (part.shard_id, part.part_id.idx))

    def run(self, parts: Sequence[FetchPart], reused: Sequence[FetchPart]) -> None:
        """Fetch parts; once this returns, all of them are in place.

        Args:
            reused: parts of the same fetch that are in place already, for the progress.
        Raises:
            FetchError: no source could give some part; all others are in place.
            IntegrityError: a part has the digest that its publisher signed, and is no part of the state root.
            StoreError: the local disk failed.
        """
        run = _Run(self, parts, reused)
        try:
            run.loop()
        finally:
            run.end()


@dataclass(frozen=True, slots=True)
class _Verified:
    index: int
    partial: PartialFile
    source_id: str
    problem: str | None
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class _Landed:
    index: int
    source_id: str
    error: BaseException | None


class _Run:
    """The state of one run."""

    def __init__(self, fetch: PartFetch, parts: Sequence[FetchPart], reused: Sequence[FetchPart]) -> None:
        self._fetch = fetch
        self._parts = parts
        self._sources = {source.source_id: source for source in fetch.sources}
        self._schedule = Schedule(
            [part.wanted() for part in parts],
            list(fetch.accounts.values()),
            fetch.limits,
            fetch.random,
            stored_otherwise=[part.stored_otherwise for part in parts],
        )
        self._messages: queue.SimpleQueue[TransferEnd | _Verified | _Landed] = queue.SimpleQueue()
        self._threads: dict[int, tuple[Transfer, TransferThread]] = {}
        self._heartbeats: dict[int, int] = {}
        # What broke off and may be resumed, by part and source.
        self._kept: dict[tuple[int, str], PartialFile] = {}
        self._throttles = _throttles(fetch.limits, list(self._sources))
        self._meter = Meter(fetch.accounts, fetch.watcher, [part.size for part in reused], [part.size for part in parts])

    def loop(self) -> None:
        while True:
            for transfer in self._schedule.start(time.monotonic()):
                self._begin(transfer)
            if self._schedule.is_finished:
                break
            self._take_messages()
            self._look_at_transfers()
            self._meter.tell()
        self._meter.tell(last=True)
        self._raise_failed()

    def end(self) -> None:
        """Cancel what runs, and wait for it a little."""
        threads = [thread for _, thread in self._threads.values()]
        for thread in threads:
            thread.cancellation.cancel()
        deadline_s = time.monotonic() + JOIN_TIMEOUT_S
        for thread in threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))

    def _begin(self, transfer: Transfer) -> None:
        part = self._parts[transfer.part]
        partial = self._kept.pop((transfer.part, transfer.source_id), None)
        if partial is None or not transfer.may_resume or partial.size >= part.size:
            self._drop(partial)
            partial = PartialFile(self._fetch.target.temporary())
        thread = TransferThread(
            transfer.transfer_id,
            self._sources[transfer.source_id],
            part.wanted(),
            sha256=part.sha256,
            partial=partial,
            throttle=self._throttles[transfer.source_id],
            ended=self._messages.put,
        )
        self._threads[transfer.transfer_id] = (transfer, thread)
        if transfer.is_hedge:
            self._fetch.watcher.event("hedged", {"object": part.object_name, "source": transfer.source_id})
        thread.start()

    def _take_messages(self) -> None:
        """Handle all that was said; wait a tick where nothing was."""
        try:
            message = self._messages.get(timeout=TICK_S)
            while True:
                if isinstance(message, TransferEnd):
                    self._transfer_ended(message)
                elif isinstance(message, _Verified):
                    self._part_verified(message)
                else:
                    self._part_landed(message)
                message = self._messages.get_nowait()
        except queue.Empty:
            return

    def _look_at_transfers(self) -> None:
        now_s = time.monotonic()
        for transfer_id, (_, thread) in self._threads.items():
            if self._heartbeats.get(transfer_id) != thread.heartbeats:
                self._heartbeats[transfer_id] = thread.heartbeats
                self._schedule.alive(transfer_id, now_s)
            self._schedule.progressed(transfer_id, thread.received, now_s)

    def _transfer_ended(self, end: TransferEnd) -> None:
        now_s = time.monotonic()
        transfer, thread = self._threads.pop(end.transfer_id)
        self._heartbeats.pop(end.transfer_id, None)
        if end.fatal is not None:
            raise end.fatal
        self._schedule.progressed(end.transfer_id, thread.received, now_s)
        part = self._parts[transfer.part]
        if end.failure is not None and not thread.cancellation.is_cancelled:
            self._failed(transfer, thread.partial, end, now_s)
        elif thread.cancellation.is_cancelled:
            self._schedule.cancelled(end.transfer_id)
            self._drop(thread.partial)
        else:
            self._cancel(self._schedule.arrived(end.transfer_id, now_s))
            index, source_id, partial = transfer.part, transfer.source_id, thread.partial
            task = VerifyPartTask(partial.path, part, self._fetch.kernel_name, check_stored=False)
            self._fetch.verifier.submit(
                task, lambda problem, error: self._messages.put(_Verified(index, partial, source_id, problem, error))
            )

    def _failed(self, transfer: Transfer, partial: PartialFile, end: TransferEnd, now_s: float) -> None:
        assert end.failure is not None
        part, account = self._parts[transfer.part], self._fetch.accounts[transfer.source_id]
        was_given_up = account.given_up
        cancelled = self._schedule.failed(
            end.transfer_id, end.failure, end.problem, now_s, gained=end.gained, retry_after_s=end.retry_after_s
        )
        facts: dict[str, object] = {"source": transfer.source_id, "problem": end.problem}
        self._fetch.watcher.event("attempt_failed", {"object": part.object_name, **facts})
        if end.failure is FailureKind.WRONG:
            self._fetch.watcher.event("banned", facts)
        if account.given_up is not None and was_given_up is None:
            self._fetch.watcher.event("given_up", {"source": transfer.source_id, "problem": account.given_up})
        if end.failure is FailureKind.TRANSIENT and partial.size:
            self._drop(self._kept.get((transfer.part, transfer.source_id)))
            self._kept[transfer.part, transfer.source_id] = partial
        else:
            self._drop(partial)
        self._cancel(cancelled)

    def _part_verified(self, verified: _Verified) -> None:
        part = self._parts[verified.index]
        if verified.error is not None:
            raise verified.error
        if verified.problem is not None:
            raise IntegrityError(
                problem=f"the part has the digest that the manifest says, and is not right: {verified.problem}",
                where=part.object_name,
                remedy="Its publisher is wrong, not its source. Fetch what another has published.",
            )
        index, source_id = verified.index, verified.source_id
        self._fetch.target.land_part(verified.partial.path, part, lambda error: self._messages.put(_Landed(index, source_id, error)))

    def _part_landed(self, landed: _Landed) -> None:
        if landed.error is not None:
            raise landed.error
        part = self._parts[landed.index]
        self._schedule.verified(landed.index)
        for key in [key for key in self._kept if key[0] == landed.index]:
            self._drop(self._kept.pop(key))
        self._meter.part_done(part.size)
        self._fetch.watcher.event("part", {"object": part.object_name, "source": landed.source_id, "bytes": part.size})

    def _cancel(self, transfer_ids: Sequence[int]) -> None:
        for transfer_id in transfer_ids:
            self._threads[transfer_id][1].cancellation.cancel()

    def _drop(self, partial: PartialFile | None) -> None:
        if partial is not None:
            with disk_errors(partial.path):
                partial.path.unlink(missing_ok=True)

    def _raise_failed(self) -> None:
        failed = self._schedule.failed_parts
        if not failed:
            return
        names = [self._parts[index].object_name for index in sorted(failed)]
        attempts: dict[str, list[str]] = {}
        for problems in failed.values():
            for source_id, found in problems.items():
                kept = attempts.setdefault(source_id, [])
                kept.extend(problem for problem in dict.fromkeys(found) if problem not in kept)
        more = f" and {len(names) - FAILED_PARTS_NAMED_MAX} more" if len(names) > FAILED_PARTS_NAMED_MAX else ""
        raise FetchError(
            problem=f"no source could give {len(names)} of {len(self._parts)} parts: {', '.join(names[:FAILED_PARTS_NAMED_MAX])}{more}",
            remedy="What is here is kept: run again later, or with more sources.",
            attempts=attempts,
        )


def _throttles(limits: FetchLimits, source_ids: Sequence[str]) -> dict[str, Throttle]:
    shared = [] if limits.bytes_per_s is None else [Pace(limits.bytes_per_s)]
    own = limits.bytes_per_s_per_source
    return {source_id: Throttle([*shared, *([] if own is None else [Pace(own)])]) for source_id in source_ids}
