"""A limit on how fast this process reads from a node's disk, so that the node keeps its own.

One pace a process and limit; the bytes counted are those of keys and values, after decompression.
"""

from __future__ import annotations

import contextlib
import time
from functools import lru_cache
from typing import Final

import psutil

from pipelines.stores.pace import Pace

BURST_S: Final = 0.25
"""How many seconds' worth of bytes may be read at once after a pause."""


def give_node_the_disk() -> None:
    """Give this process, and those that it starts from now on, low I/O priority where the system has such a thing."""
    with contextlib.suppress(psutil.Error, OSError, AttributeError, ValueError):
        psutil.Process().ionice(psutil.IOPRIO_CLASS_BE, 7)


@lru_cache(maxsize=16)
def process_read_limit(bytes_per_s: int) -> Pace:
    """Return this process's pace for a limit, and give the process low I/O priority."""
    give_node_the_disk()
    return Pace(bytes_per_s, burst_s=BURST_S)


def keep_read_limit(limit: Pace | None, byte_count: int) -> None:
    """Count bytes that were read; sleep until they are within the limit, if there is one."""
    wait_s = 0.0 if limit is None else limit.book_passed(byte_count)
    if wait_s:
        time.sleep(wait_s)
