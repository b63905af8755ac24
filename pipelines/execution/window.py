"""How many tasks may be under way: the sliding window that bounds bytes in flight. Pure arithmetic, no Ray."""

from __future__ import annotations

TASKS_PER_SLOT = 2
"""One that runs and one that waits behind it, so that no worker idles while the driver is asked for more."""

MEMORY_SHARE = 0.7
"""Share of a cluster's memory that tasks may count on; the rest is for Ray and the page cache."""


def window_size(cpus: float, memory_bytes: float, task_memory_bytes: int) -> int:
    """Return how many tasks to submit at once: two a core, and no more than fit into memory; at least one.

    Args:
        cpus: cores that may run these tasks.
        memory_bytes: memory of the machines that may run them; 0 where it is not known.
        task_memory_bytes: most of the process that runs one.
    """
    by_cpu = max(1, int(cpus * TASKS_PER_SLOT))
    if not memory_bytes or not task_memory_bytes:
        return by_cpu
    by_memory = max(1, int(memory_bytes * MEMORY_SHARE // task_memory_bytes) * TASKS_PER_SLOT)
    return min(by_cpu, by_memory)
