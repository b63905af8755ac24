"""Judges fetched parts in processes of their own, while others are still being transferred.

The digest of the stored bytes was compared before: what is wrong here is not the source's fault but the publisher's. Processes bound what
a hostile part can do to the fetch: one that makes its process die is a part that is not right.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipelines.execution.stop_signals import kept_blocked, receive_signals
from pipelines.fetching.epoch_target import HeldPart
from pipelines.fetching.fetch_part import FetchPart
from pipelines.kernel.choice import choose_kernel
from pipelines.kernel.part_check import decode_stated_part
from pipelines.stores.durable_file import disk_errors
from pipelines.stores.open_store import open_store
from pipelines.stores.regular_file import open_regular
from schemas.errors import IntegrityError, PartialResultError, StatecastError

PARENT_POLL_S: Final = 1.0
"""How often a worker looks whether the fetch that it works for is still there."""


@dataclass(frozen=True, slots=True)
class VerifyPartTask:
    """A file or an object that is to be a part."""

    held: HeldPart
    part: FetchPart
    kernel_name: str
    check_stored: bool
    """Also compare the stored bytes: for files that were not digested while they came."""

    def run(self) -> str | None:
        """Return what is wrong with the part, or None.

        Raises:
            StoreError: it can't be read.
        """
        part = self.part
        data = _read(self.held, part.size + 1)
        if len(data) != part.size:
            return "it does not have the manifest's size"
        if self.check_stored and hashlib.sha256(data).hexdigest() != part.sha256:
            return "it does not have the manifest's sha256"
        try:
            decoded = decode_stated_part(data, part.encoding, part.decoded_sha256, part.decoded_size)
            choose_kernel(self.kernel_name).validate_sorted(decoded, part.state_root, part.part_id)
        except IntegrityError as error:
            return error.problem
        return None


def _read(held: HeldPart, bytes_max: int) -> bytes:
    if not isinstance(held, Path):
        return open_store(held.store_url).get(held.name, 0, bytes_max)
    with disk_errors(held), open_regular(held) as file:
        # Python makes room for all that is asked for.
        return file.read(min(bytes_max, os.fstat(file.fileno()).st_size))


class Verifier:
    """Runs tasks in worker processes, or in threads of this process.

    Args:
        workers: how many at once; each holds one part in memory, both stored and decoded.
        in_threads: no processes: for tests, and where memory for their imports lacks. The native kernel runs beside other threads.
    """

    def __init__(self, workers: int, *, in_threads: bool = False) -> None:
        assert workers >= 1
        self._workers = workers
        self._in_threads = in_threads
        self._executor: Executor | None = None

    def submit(self, task: VerifyPartTask, ended: Callable[[str | None, BaseException | None], None]) -> None:
        """Begin a task; ``ended`` gets what is wrong with the part or None, or an error, in some thread."""
        try:
            future = self._open().submit(_run, task)
        except BrokenProcessPool:
            ended(None, _died())
            return
        future.add_done_callback(lambda done: ended(*_outcome(done)))

    def close(self) -> None:
        """Drop what waits and let the workers go."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def _open(self) -> Executor:
        if self._executor is None:
            if self._in_threads:
                self._executor = ThreadPoolExecutor(self._workers, thread_name_prefix="verify")
            else:
                # Spawned, not forked: this process has threads, and a client library in one of them may hold a lock.
                context = multiprocessing.get_context("spawn")
                with kept_blocked():
                    self._executor = ProcessPoolExecutor(self._workers, context, _end_with_parent, (os.getpid(),))
        return self._executor


def _run(task: VerifyPartTask) -> str | None:
    return task.run()


def _outcome(done: Future[str | None]) -> tuple[str | None, BaseException | None]:
    if done.cancelled():
        return None, PartialResultError(problem="the fetch was ended before the part was verified")
    error = done.exception()
    if isinstance(error, BrokenProcessPool):
        return None, _died()
    return (None, error) if error is not None else (done.result(), None)


def _died() -> StatecastError:
    return PartialResultError(
        problem="a process that verifies parts died, perhaps for want of memory",
        remedy="Run again with fewer --verify-workers; what is here is kept.",
    )


def _end_with_parent(parent: int) -> None:
    """Let a worker end when the fetch was killed: its queue would never tell."""
    # Ctrl-C and a terminal's end go to the whole group; the fetch itself lets the workers go.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    receive_signals()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_S)
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
