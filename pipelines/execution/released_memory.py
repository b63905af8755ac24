"""Runs a task and then hands the memory that it is done with back to the operating system.

A worker runs tasks of every stage, one after another, and three allocators each keep what a task freed for the next one: Arrow's pool, the native
kernel's large blocks, and the C library's heaps, of which every thread has its own. What one stage leaves there another stage's task can't use,
so a worker came to hold the sum of the stages' peaks instead of the largest. Within a task all three keep what they like.

Pages of memory-mapped files are not looked after here: they go with the mapping, and the system takes them back when it needs them.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any, TypeVar

from pipelines.execution.executor import Task
from pipelines.kernel import native

R = TypeVar("R")


def run_and_release(task: Task[R]) -> R:
    """Run a task; whether it ends well or not, give back what it freed.

    Raises:
        StatecastError: the task's own error.
    """
    try:
        return task.run()
    finally:
        release_memory()


def release_memory() -> None:
    """Give back what this process' allocators keep and nobody uses. Libraries that are not loaded stay so."""
    pyarrow = sys.modules.get("pyarrow")
    if pyarrow is not None:
        pyarrow.default_memory_pool().release_unused()
    native.give_back_memory()
    trim = _malloc_trim()
    if trim is not None:
        # Last: the kernel's blocks and a part of Arrow's own go back to the C library first.
        trim(0)


@cache
def _malloc_trim() -> Any:
    """Return glibc's function that gives back free pages of all heaps; None where the C library is another one."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
