"""Runs the table of decoders over made-up inputs: ``make fuzz MINUTES=5``.

Each decoder gets a process of its own, forked when all genuine documents are made, with a limit on its memory; it is ended where an
input takes no end. What an input must give is a value or an error of `schemas.errors`, within `INPUT_S_MAX` and `INPUT_BYTES_MAX`. What
gives anything else is tried alone once more, shortened, and left in ``tests/fixtures/fuzz``, where it is a test from then on.
"""

from __future__ import annotations

import argparse
import logging
import math
import mmap
import os
import pickle
import re
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from schemas.errors import StatecastError
from tests.fuzz.decoder import Decoder, corpus_of, input_of
from tests.fuzz.table import decoders

FAILURES = Path(__file__).resolve().parents[1] / "fixtures" / "fuzz"
"""A folder a decoder, a file an input."""

INPUT_S_MAX = 1.0
"""Longest that an input may take, of its thread's own time: the machine may have other work."""

INPUT_MEMORY_MAX = 256 << 20
"""Most memory that an input may take, above what the process had before."""

HANG_S = 60.0
"""After so long without a sign of life a process is ended."""

FAILURES_MAX = 20
"""Kinds of failure of one decoder after which it is left alone."""

_SHRINK_TRIES = 400

_MEMORY = "/dev/shm"


@dataclass(slots=True)
class Failure:
    """An input that gave something else."""

    kind: str
    data: bytes


@dataclass(slots=True)
class Tally:
    """What came of a decoder's inputs."""

    inputs: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0
    memory: int = 0
    """Growth of the process's largest size, bytes."""
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: dict[str, Failure] = field(default_factory=dict)
    """By kind: the first input of each."""

    def add(self, other: Tally) -> None:
        """Take in what another process did."""
        self.inputs += other.inputs
        self.seconds += other.seconds
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.memory = max(self.memory, other.memory)
        self.outcomes += other.outcomes
        self.failures = {**other.failures, **self.failures}


def outcome_of(decoder: Decoder, data: bytes) -> str:
    """Return ``value``, or the name of the error that an input gives; anything else is raised."""
    try:
        decoder.decode(data)
    except StatecastError as error:
        # What is shown to people and to programs has to be there as well.
        str(error), error.to_json()
        return type(error).__name__
    return "value"


def own_time_s(decoder: Decoder, data: bytes) -> float:
    """Return how long an input takes of this thread's own time; the lesser of two where the first look says that it takes too long.

    The first one may have imported a library, or collected what others left.
    """
    taken_s = 0.0
    for _ in range(2):
        started = time.thread_time()
        outcome_of(decoder, data)
        taken_s = time.thread_time() - started
        if taken_s <= INPUT_S_MAX:
            break
    return taken_s


def judge(decoder: Decoder, data: bytes, tally: Tally) -> str | None:
    """Try an input; return the kind of failure, or None."""
    started = time.thread_time()
    try:
        tally.outcomes[outcome_of(decoder, data)] += 1
        kind = None
    except MemoryError:
        kind = "memory"
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/tests/" not in frame.filename]
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "the test"
        kind = f"{type(error).__name__} in {place}"
    taken_s = time.thread_time() - started
    tally.inputs += 1
    tally.slowest_s = max(tally.slowest_s, taken_s)
    return "slow" if kind is None and taken_s > INPUT_S_MAX else kind


def _limit_memory() -> int:
    """Limit this process's memory; return its size now."""
    status = Path("/proc/self/status").read_text()
    now = 1024 * int(re.search(r"VmData:\s+(\d+)", status)[1])  # type: ignore[index]
    resource.setrlimit(resource.RLIMIT_DATA, (now + INPUT_MEMORY_MAX, resource.RLIM_INFINITY))
    # The high-water mark starts over.
    Path("/proc/self/clear_refs").write_text("5")
    return _resident_max()


def _resident_max() -> int:
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]


def _run_inputs(decoder: Decoder, seed: int, first: int, inputs: int, deadline_s: float, sign: mmap.mmap) -> Tally:
    tally, before = Tally(), _limit_memory()
    for number in range(first, first + inputs):
        struct.pack_into("<Q", sign, 0, number + 1)
        if number % 64 == 0 and time.monotonic() > deadline_s:
            break
        data = input_of(decoder, seed, number)
        kind = judge(decoder, data, tally)
        if kind is not None and kind not in tally.failures:
            tally.failures[kind] = Failure(kind, data)
            if len(tally.failures) >= FAILURES_MAX:
                break
    tally.memory = max(0, _resident_max() - before)
    return tally


class Child:
    """A process that tries a decoder's inputs from a number on."""

    def __init__(self, decoder: Decoder, seed: int, first: int, inputs: int, seconds: float) -> None:
        self.decoder, self.seed, self.first, self.inputs = decoder, seed, first, inputs
        self.sign = mmap.mmap(-1, 8)
        self.started = self.seen = time.monotonic()
        self.deadline_s = self.started + seconds
        self._number = 0
        self._read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.close(self._read)
                tally = _run_inputs(decoder, seed, first, inputs, self.deadline_s, self.sign)
                with os.fdopen(write, "wb") as pipe:
                    pickle.dump(tally, pipe)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(write)
        os.set_blocking(self._read, False)
        self._answer = bytearray()

    def poll(self) -> tuple[Tally, int | None, str] | None:
        """Return None while it runs; else the tally, the number of an input that ended it, and how."""
        try:
            while part := os.read(self._read, 1 << 20):
                self._answer += part
        except BlockingIOError:
            pass
        (number,) = struct.unpack_from("<Q", self.sign, 0)
        now = time.monotonic()
        if number != self._number:
            self._number, self.seen = number, now
        hangs = now - self.seen > HANG_S
        if hangs:
            os.kill(self.pid, signal.SIGKILL)
        pid, status = os.waitpid(self.pid, 0 if hangs else os.WNOHANG)
        if pid == 0:
            return None
        try:
            while part := os.read(self._read, 1 << 20):
                self._answer += part
        except BlockingIOError:
            pass
        os.close(self._read)
        if status == 0:
            tally: Tally = pickle.loads(self._answer)
            tally.seconds = now - self.started
            return tally, None, ""
        done = max(0, number - 1 - self.first)
        how = "hang" if hangs else f"ended by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "ended"
        return Tally(inputs=done, seconds=now - self.started), max(0, number - 1), how


def _alone(decoder: Decoder, data: bytes, kind: str) -> bool:
    """Whether an input fails in a process of its own too, and not for what came before it."""
    pid = os.fork()
    if pid == 0:
        _limit_memory()
        os._exit(0 if judge(decoder, data, Tally()) is None else 3)
    until = time.monotonic() + HANG_S
    while time.monotonic() < until:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status != 0
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


def _shrunk(decoder: Decoder, failure: Failure) -> bytes:
    """Return a shorter input of the same kind of failure, where one is found soon."""
    data, tries = failure.data, 0
    size = len(data) // 2
    while size and tries < _SHRINK_TRIES:
        begin = 0
        while begin < len(data) and tries < _SHRINK_TRIES:
            shorter, tries = data[:begin] + data[begin + size :], tries + 1
            if judge(decoder, shorter, Tally()) == failure.kind:
                data = shorter
            else:
                begin += size
        size //= 2
    return data


def folder_of(decoder: Decoder) -> Path:
    """Return where a decoder's failures lie."""
    return FAILURES / re.sub(r"[^a-z0-9]+", "-", decoder.name.lower()).strip("-")


def kept_inputs() -> Iterator[tuple[Decoder, Path]]:
    """Yield the inputs that were kept, with the decoder that each is for."""
    for decoder in decoders().values():
        for path in sorted(folder_of(decoder).glob("*")):
            yield decoder, path


def _keep(decoder: Decoder, failure: Failure) -> bool:
    """Leave an input as a test; return whether it fails alone too."""
    if not _alone(decoder, failure.data, failure.kind):
        print(f"  {decoder.name}: {failure.kind} once, and not again alone", flush=True)
        return False
    data = _shrunk(decoder, failure) if " in " in failure.kind else failure.data
    path = folder_of(decoder) / sha256(data).hexdigest()[:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    print(
        f"  {decoder.name}: {failure.kind}; again: {os.path.relpath(sys.executable)} -m tests.fuzz.run --replay {os.path.relpath(path)}",
        flush=True,
    )
    return True


def run(chosen: list[Decoder], seed: int, inputs: int, seconds: float, at_once: int) -> dict[str, Tally]:
    """Try each decoder's inputs, a few decoders side by side.

    Args:
        inputs: most of a decoder.
        seconds: for all together.
    """
    tallies = {decoder.name: Tally() for decoder in chosen}
    share_s = seconds * at_once / len(chosen)
    waiting, running = list(chosen), list[Child]()
    while waiting or running:
        while waiting and len(running) < at_once:
            running.append(Child(waiting.pop(0), seed, 0, inputs, share_s))
        for child in list(running):
            found = child.poll()
            if found is None:
                continue
            running.remove(child)
            tally, number, how = found
            name = child.decoder.name
            if number is not None:
                # A process that was ended says nothing of the inputs before, and goes on behind the one that ended it.
                tally.failures[how] = Failure(how, input_of(child.decoder, seed, number))
                left_s = child.deadline_s - time.monotonic()
                if len(tallies[name].failures) < FAILURES_MAX and left_s > 0:
                    running.append(Child(child.decoder, seed, number + 1, child.first + child.inputs - number - 1, left_s))
            fresh = {kind: failure for kind, failure in tally.failures.items() if kind not in tallies[name].failures}
            tallies[name].add(tally)
            for kind, failure in fresh.items():
                if not _keep(child.decoder, failure):
                    del tallies[name].failures[kind]
            if not any(one.decoder is child.decoder for one in running):
                print(_row(name, tallies[name]), flush=True)
        time.sleep(0.02)
    return tallies


_HEAD = f"{'decoder':34} {'inputs':>9} {'seconds':>8} {'slowest':>8} {'largest':>8} outcomes"


def _row(name: str, tally: Tally) -> str:
    outcomes = ", ".join(f"{outcome} {count}" for outcome, count in tally.outcomes.most_common(4))
    failed = f"; FAILED: {', '.join(tally.failures)}" if tally.failures else ""
    return f"{name:34} {tally.inputs:9} {tally.seconds:8.1f} {tally.slowest_s * 1000:5.0f} ms {tally.memory / 2**20:4.0f} MiB {outcomes}{failed}"


def _warm(decoder: Decoder) -> None:
    """Read the genuine documents, so that no input pays for what is imported at first use."""
    for data in corpus_of(decoder):
        outcome_of(decoder, data)


def _have_memory_for_files() -> None:
    """Have temporary files lie in memory, where the system has a place for that: a file an input costs a disk more than the decoder's work."""
    if "TMPDIR" not in os.environ and os.access(_MEMORY, os.W_OK):
        os.environ["TMPDIR"] = _MEMORY
        tempfile.tempdir = None


def _replay(path: Path) -> int:
    (decoder,) = (found for found in decoders().values() if folder_of(found) == path.resolve().parent)
    _warm(decoder)
    _limit_memory()
    started = time.thread_time()
    try:
        outcome = outcome_of(decoder, path.read_bytes())
    except Exception:
        traceback.print_exc()
        return 1
    taken_s = time.thread_time() - started
    print(f"{decoder.name}: {outcome} in {taken_s:.3f} s")
    return int(taken_s > INPUT_S_MAX)


def main() -> int:
    """Run the command; returns 1 where an input failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, help="for all decoders together: 300 without --inputs, and else as long as it takes")
    parser.add_argument("--inputs", type=int, help="most inputs of a decoder")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other inputs")
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1, help="decoders that run side by side")
    parser.add_argument("--decoder", action="append", default=[], help="the decoders whose names have this in them; all by default")
    parser.add_argument("--replay", type=Path, help="try one kept input again")
    options = parser.parse_args()
    if options.replay is not None:
        return _replay(options.replay)
    chosen = [one for one in decoders().values() if not options.decoder or any(part in one.name for part in options.decoder)]
    if not chosen:
        parser.error(f"no decoder has {' or '.join(options.decoder)} in its name; there are: {', '.join(decoders())}")
    # What libraries say of odd input is no result.
    logging.disable(logging.CRITICAL)
    _have_memory_for_files()
    seconds = options.seconds or (300.0 if options.inputs is None else math.inf)
    for decoder in chosen:
        _warm(decoder)
    print(_HEAD, flush=True)
    tallies = run(chosen, options.seed, options.inputs or sys.maxsize, seconds, options.at_once)
    failed = [name for name, tally in tallies.items() if tally.failures]
    print(f"{sum(tally.inputs for tally in tallies.values())} inputs, {len(failed)} of {len(tallies)} decoders failed", flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
