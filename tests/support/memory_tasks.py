"""A task that leaves much freed memory with every allocator that a worker has; processes of a test import it from here."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipelines.kernel.choice import choose_kernel

FREED_BYTES = 48 << 20
"""What the task takes and frees, once from each allocator: Arrow's, the C library's and, with the native kernel, the kernel's."""

_BYTES_OF_ONE = 4096

_kept: list[bytes] = []
"""As a library's caches: it lies above what a task freed in the C library's heap, which shrinks by itself from its end alone."""


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Anonymous memory of a process around a task: what is no page of a file."""

    pid: int
    began_s: float
    bytes_before: int


@dataclass(frozen=True, slots=True)
class FreedMemoryTask:
    """Takes memory as a production's tasks do, and frees all of it."""

    kernel_name: str

    def run(self) -> MemoryUse:
        """Return what was there before, once everything is loaded."""
        kernel = choose_kernel(self.kernel_name)
        use = MemoryUse(os.getpid(), time.monotonic(), anonymous_bytes())
        stream = pa.BufferOutputStream()
        for _ in range(FREED_BYTES >> 20):
            stream.write(bytes(1 << 20))
        nodes = [number.to_bytes(4, "big") + bytes(_BYTES_OF_ONE) for number in range(FREED_BYTES // _BYTES_OF_ONE)]
        _kept.append(nodes[-1])
        kernel.assemble(None, nodes)
        return use


def anonymous_bytes() -> int:
    """Return the memory of this process that is no page of a file."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("RssAnon:"))


def is_measurable() -> bool:
    """Return whether this system says what is anonymous, and its C library gives back what is asked back."""
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim")
