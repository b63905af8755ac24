"""A limit on how fast this process sends large objects to stores, so that a line that others share stays usable.

One pace a process and limit. It counts whole objects before they are put: over several of them the rate is kept, while each goes out as
fast as the line takes it.
"""

from __future__ import annotations

import time
from functools import lru_cache

from pipelines.stores.pace import Pace


@lru_cache(maxsize=16)
def process_upload_limit(bytes_per_s: int) -> Pace:
    """Return this process's pace for a limit."""
    return Pace(bytes_per_s)


def keep_upload_limit(bytes_per_s: int | None, byte_count: int) -> None:
    """Sleep until an object may be put: until those before it are within the limit, if there is one."""
    wait_s = 0.0 if bytes_per_s is None else process_upload_limit(bytes_per_s).book(byte_count)
    if wait_s:
        time.sleep(wait_s)
